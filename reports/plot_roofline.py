"""Roofline: what the machine allows, and where each layer lies under it, dense and planned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from ..kernels.dense import UNITS
from ..kernels.problem import Problem
from ..planner.schema import Plan
from ..profiles.schema import Ceiling, MachineProfile
from ..runtime.schema import Measurements
from .axes import logarithmic, name_points, settle_layout
from .format import seconds, significant, with_prefix
from .roofs import bandwidth_roofs, paint_roofs, rate_roofs
from .svg import DENSE_COLOUR, FAINT_COLOUR, PLANNED_COLOUR, WARNING_COLOUR, inline_svg, tooltip

_LABELLED_LAYERS = 8
"""The reverted and the notable; the others show their name under the pointer."""
_MARGIN = 2.5
"""Factor between the outermost point or roof and the edge of the plot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """How one kind of point is drawn."""

    label: str
    marker: str
    face: str
    edge: str

    @property
    def style(self) -> dict[str, Any]:
        return {"marker": self.marker, "facecolor": self.face, "edgecolor": self.edge, "s": 36.0}


_DENSE = _Mark(label="dense", marker="o", face="none", edge=DENSE_COLOUR)
_PLANNED = _Mark(label="planned", marker="o", face=PLANNED_COLOUR, edge=PLANNED_COLOUR)
_REVERTED = _Mark(label="planned, reverted", marker="X", face=WARNING_COLOUR, edge=WARNING_COLOUR)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoofPoint:
    """A layer under the roof; intensity in flop/byte, rate in useful flop/s."""

    intensity: float
    flop_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoofLayer:
    """A measured layer: where it was, where it is now."""

    name: str
    dense: RoofPoint
    planned: RoofPoint
    dense_time_s: float
    time_s: float
    reverted: bool


def intensity_of(problem: Problem) -> float:
    """Useful flop over compulsory bytes: input, output and non-zero weights, each once.

    References
    ----------
    Williams, Waterman, Patterson, Roofline, CACM 52(4), 2009: operational intensity.
    """
    weight_bytes = problem.weight_bytes * (1.0 - problem.sparsity)
    return problem.flop_useful / (problem.input_bytes + problem.output_bytes + weight_bytes)


def roof_layers(plan: Plan, measurements: Measurements) -> tuple[RoofLayer, ...]:
    """The measured layers with work to show, in the plan's order."""
    measured = {layer.name: layer for layer in measurements.layers}
    layers = []
    for layer in plan.layers:
        if layer.name not in measured or layer.problem.flop_useful == 0.0:
            continue
        times = measured[layer.name]
        dense = replace(layer.problem.as_dense(), dtype=layer.dense.dtype)
        dense_s, planned_s = times.dense_time_s.median, times.time_s.median
        layers.append(
            RoofLayer(
                name=layer.name,
                dense=RoofPoint(intensity=intensity_of(dense), flop_per_s=dense.flop_useful / dense_s),
                planned=RoofPoint(
                    intensity=intensity_of(layer.problem), flop_per_s=layer.problem.flop_useful / planned_s
                ),
                dense_time_s=dense_s,
                time_s=planned_s,
                reverted=times.reverted,
            )
        )
    return tuple(layers)


def plot_roofline(plan: Plan, measurements: Measurements, profile: MachineProfile) -> Markup | None:
    """The plot, or None where the profile has no ceilings at its thread count or no layer was measured."""
    layers = roof_layers(plan, measurements)
    units = {UNITS[candidate.dtype] for layer in plan.layers for candidate in (layer.chosen, layer.dense)}
    bandwidths, rates = bandwidth_roofs(profile), rate_roofs(profile, units)
    if not layers or not bandwidths or not rates:
        return None
    x_limits, y_limits = _limits(layers, bandwidths, rates)

    def paint(axes: Axes) -> None:
        logarithmic(axes, "x", low=x_limits[0], high=x_limits[1], label=lambda value: significant(value))
        logarithmic(axes, "y", low=y_limits[0], high=y_limits[1], label=lambda value: with_prefix(value, "flop/s"))
        axes.set_xlabel("useful flop per compulsory byte (flop/byte)")
        axes.set_ylabel("useful work per second, measured")
        _paint_layers(axes, layers)
        shown = (_DENSE, _PLANNED, _REVERTED) if any(layer.reverted for layer in layers) else (_DENSE, _PLANNED)
        axes.figure.legend(
            handles=[axes.scatter([], [], label=mark.label, **mark.style) for mark in shown],
            loc="outside upper left",
            ncols=len(shown),
            handletextpad=0.2,
            columnspacing=1.2,
        )
        settle_layout(axes)
        paint_roofs(axes, bandwidths, rates)
        notable = sorted(layers, key=lambda layer: (not layer.reverted, -layer.dense_time_s))[:_LABELLED_LAYERS]
        name_points(
            axes,
            ((layer.name, layer.planned.intensity, layer.planned.flop_per_s) for layer in notable),
            points=((point.intensity, point.flop_per_s) for layer in layers for point in (layer.dense, layer.planned)),
        )

    return inline_svg(
        paint,
        key="roofline",
        label=f"Roofline plot of {len(layers)} measured layers, dense and planned, under the ceilings of the machine.",
        size_in=(4.9, 3.8),
    )


def _limits(
    layers: tuple[RoofLayer, ...], bandwidths: list[Ceiling], rates: list[Ceiling]
) -> tuple[tuple[float, float], tuple[float, float]]:
    points = [point for layer in layers for point in (layer.dense, layer.planned)]
    last_ridge = max(rate.value for rate in rates) / min(bandwidth.value for bandwidth in bandwidths)
    x = [point.intensity for point in points]
    y = [point.flop_per_s for point in points]
    first_ridge = max(rate.value for rate in rates) / max(bandwidth.value for bandwidth in bandwidths)
    return (
        (min(*x, first_ridge) / _MARGIN, max(*x, last_ridge) * _MARGIN),
        (min(y) / _MARGIN, max(*y, *(rate.value for rate in rates)) * _MARGIN),
    )


def _paint_layers(axes: Axes, layers: tuple[RoofLayer, ...]) -> None:
    for layer in layers:
        axes.plot(
            [layer.dense.intensity, layer.planned.intensity],
            [layer.dense.flop_per_s, layer.planned.flop_per_s],
            color=FAINT_COLOUR,
            linewidth=1.0,
            zorder=2,
        )
        _paint_point(axes, layer.dense, _DENSE, name=layer.name, time_s=layer.dense_time_s)
        _paint_point(
            axes, layer.planned, _REVERTED if layer.reverted else _PLANNED, name=layer.name, time_s=layer.time_s
        )


def _paint_point(axes: Axes, point: RoofPoint, mark: _Mark, *, name: str, time_s: float) -> None:
    artist = axes.scatter([point.intensity], [point.flop_per_s], zorder=3, **mark.style)
    tooltip(
        artist,
        f"{name}, {mark.label}: {seconds(time_s)}, {with_prefix(point.flop_per_s, 'flop/s')} useful, "
        f"{significant(point.intensity)} flop/byte",
    )
