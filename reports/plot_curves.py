"""Small multiples: predicted speedup against sparsity, one panel a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, groupby

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from ..planner.schema import Plan
from ..runtime.schema import LayerTime, Measurements
from .axes import linear, logarithmic, whiskers
from .curves import SpeedupCurve
from .format import percent, ratio
from .svg import INK_COLOUR, SERIES_COLOURS, inline_svg

_MARKERS = ("o", "s", "^", "D", "v")
_LIMITS = (0.5, 2.0)
"""An axis shows at least from half to double the speed."""
_LARGEST_RANGE = (0.02, 100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveNote:
    """One curve in words."""

    pattern: str
    kernel: str
    break_even: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePanel:
    """One layer: its plot and what it says."""

    layer: str
    plot: Markup
    notes: tuple[CurveNote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """The layer as it was measured: pattern, sparsity, and how often faster than dense."""

    pattern: str
    sparsity: float
    speedup: float


def plot_curves(curves: Sequence[SpeedupCurve], plan: Plan, measurements: Measurements) -> tuple[CurvePanel, ...]:
    """One panel a layer, in the order of the curves; a cross marks what was measured there."""
    measured = {
        layer.name: _measured(layer.chosen.pattern, layer.chosen.sparsity, time)
        for layer in plan.layers
        for time in measurements.layers
        if time.name == layer.name
    }
    patterns = dict.fromkeys(curve.pattern for curve in curves)
    styles = dict(zip(patterns, cycle(zip(SERIES_COLOURS, _MARKERS, strict=True)), strict=False))
    return tuple(
        _panel(index, tuple(members), measured.get(layer), styles)
        for index, (layer, members) in enumerate(groupby(curves, key=lambda curve: curve.layer))
    )


def _measured(pattern: str, sparsity: float, time: LayerTime) -> _Measured:
    return _Measured(pattern=pattern, sparsity=sparsity, speedup=time.dense_time_s.median / time.time_s.median)


def _panel(
    index: int, curves: tuple[SpeedupCurve, ...], measured: _Measured | None, styles: Mapping[str, tuple[str, str]]
) -> CurvePanel:
    layer = curves[0].layer
    low = max(_LARGEST_RANGE[0], min(_LIMITS[0], *(value for curve in curves for value in curve.low)))
    high = min(_LARGEST_RANGE[1], max(_LIMITS[1], *(value for curve in curves for value in curve.high)))

    def paint(axes: Axes) -> None:
        logarithmic(axes, "y", low=low, high=high, label=ratio)
        axes.set_xlim(0.0, 1.0)
        linear(axes.xaxis, label=percent)
        axes.axhline(1.0, color=INK_COLOUR, linewidth=0.9)
        for curve in curves:
            _paint_curve(axes, curve, *styles[curve.pattern])
        if measured is not None and any(curve.pattern == measured.pattern for curve in curves):
            axes.plot(
                measured.sparsity,
                measured.speedup,
                "X",
                color="white",
                markeredgecolor=INK_COLOUR,
                markersize=8,
                label="measured",
                clip_on=False,
                zorder=5,
            )
        axes.set_xlabel("zero weights")
        axes.set_ylabel("speedup, predicted")
        axes.legend(loc="upper left")

    words = "; ".join(f"{curve.pattern} {_break_even(curve)}" for curve in curves)
    return CurvePanel(
        layer=layer,
        plot=inline_svg(
            paint,
            key=f"curve-{index}",
            label=f"Predicted speedup of layer {layer} against its sparsity: {words}.",
            size_in=(3.9, 2.9),
        ),
        notes=tuple(
            CurveNote(pattern=curve.pattern, kernel=curve.kernel, break_even=_break_even(curve)) for curve in curves
        ),
    )


def _paint_curve(axes: Axes, curve: SpeedupCurve, colour: str, marker: str) -> None:
    if len(curve.sparsity) == 1:
        axes.errorbar(
            curve.sparsity,
            curve.speedup,
            yerr=whiskers(curve.speedup[0], curve.low[0], curve.high[0]),
            fmt=marker,
            color=colour,
            label=curve.pattern,
        )
        return
    axes.fill_between(curve.sparsity, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0.0)
    axes.plot(curve.sparsity, curve.speedup, color=colour, label=curve.pattern)
    if curve.break_even is not None:
        speedup = float(np.interp(curve.break_even, curve.sparsity, curve.speedup))
        axes.plot(curve.break_even, speedup, marker, color=colour, markersize=6, clip_on=False, zorder=4)


def _break_even(curve: SpeedupCurve) -> str:
    if curve.break_even is None:
        return "never beats dense"
    return f"beats dense from {percent(curve.break_even)} zeros"
