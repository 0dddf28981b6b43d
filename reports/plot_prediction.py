"""Predicted against measured time of each layer, and how far apart they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup
from matplotlib.axes import Axes

from ..perfmodel.schema import Interval
from ..planner.schema import Plan
from ..profiles.timing import TimeStats
from ..runtime.schema import Measurements
from .axes import logarithmic, name_points, settle_layout, whiskers
from .format import percent, seconds
from .svg import DENSE_COLOUR, FAINT_COLOUR, INK_COLOUR, PLANNED_COLOUR, inline_svg, tooltip

BAND_FRAC = 0.1
"""Half-width of the band around equality: the measure that latency predictors are commonly judged by."""

_NAMED = 3
"""The worst predictions outside the band carry their names; the others show theirs under the pointer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedLayer:
    """One kernel in one layer, predicted and measured."""

    name: str
    predicted_s: Interval
    measured_s: TimeStats

    @property
    def error_frac(self) -> float:
        """Of the predicted time, against the measured one; signed."""
        return self.predicted_s.median / self.measured_s.median - 1.0

    @property
    def is_covered(self) -> bool:
        """Whether the measured median lies in the predicted interval."""
        return self.predicted_s.low <= self.measured_s.median <= self.predicted_s.high


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionQuality:
    """How well a set of predictions did, formatted."""

    kernels: str
    count: str
    median_error: str
    within_band: str
    covered: str


def planned_predictions(measurements: Measurements) -> tuple[PredictedLayer, ...]:
    """Of the kernels that the plan chose."""
    return tuple(
        PredictedLayer(name=layer.name, predicted_s=layer.predicted_time_s, measured_s=layer.time_s)
        for layer in measurements.layers
    )


def dense_predictions(plan: Plan, measurements: Measurements) -> tuple[PredictedLayer, ...]:
    """Of the dense rivals in the same layers."""
    planned = {layer.name: layer for layer in plan.layers}
    return tuple(
        PredictedLayer(name=layer.name, predicted_s=planned[layer.name].dense.time_s, measured_s=layer.dense_time_s)
        for layer in measurements.layers
        if layer.name in planned
    )


def prediction_quality(kernels: str, predictions: Sequence[PredictedLayer]) -> PredictionQuality:
    """Median absolute error, share within the band, share inside the predicted interval; of at least one layer."""
    errors = [abs(layer.error_frac) for layer in predictions]
    return PredictionQuality(
        kernels=kernels,
        count=str(len(predictions)),
        median_error=percent(median(errors)),
        within_band=percent(sum(error <= BAND_FRAC for error in errors) / len(errors)),
        covered=percent(sum(layer.is_covered for layer in predictions) / len(predictions)),
    )


def plot_prediction(planned: Sequence[PredictedLayer], dense: Sequence[PredictedLayer]) -> Markup:
    """Both axes logarithmic; bars are the 95 % interval of the measurement and the 90 % interval of the prediction."""
    everything = (*planned, *dense)
    # A prediction may reach down to zero, which has no place on a logarithmic axis.
    times_s = [
        time_s
        for layer in everything
        for time_s in (layer.measured_s.low, layer.measured_s.high, layer.predicted_s.low, layer.predicted_s.high)
        if time_s > 0.0
    ]
    low_s, high_s = min(times_s) / 1.3, max(times_s) * 1.3

    def paint(axes: Axes) -> None:
        logarithmic(axes, "x", low=low_s, high=high_s, label=seconds)
        logarithmic(axes, "y", low=low_s, high=high_s, label=seconds)
        ends = (low_s, high_s)
        axes.fill_between(
            ends,
            [end * (1.0 - BAND_FRAC) for end in ends],
            [end * (1.0 + BAND_FRAC) for end in ends],
            color=FAINT_COLOUR,
            alpha=0.6,
            linewidth=0.0,
            label="within ±10 %",
        )
        axes.plot(ends, ends, color=INK_COLOUR, linewidth=0.8)
        _paint_predictions(axes, dense, label="dense kernel", colour=DENSE_COLOUR, face="white")
        _paint_predictions(axes, planned, label="planned kernel", colour=PLANNED_COLOUR, face=PLANNED_COLOUR)
        axes.set_aspect("equal")
        axes.set_xlabel("measured time of one call")
        axes.set_ylabel("predicted time of one call")
        axes.figure.legend(loc="outside upper left", ncols=3, handletextpad=0.4, columnspacing=1.2)
        settle_layout(axes)
        name_points(
            axes,
            ((layer.name, layer.measured_s.median, layer.predicted_s.median) for layer in _worst(everything)),
            points=((layer.measured_s.median, layer.predicted_s.median) for layer in everything),
        )

    return inline_svg(
        paint,
        key="prediction",
        label=f"Scatter of predicted against measured time of {len(planned)} planned and {len(dense)} dense kernels.",
        size_in=(4.6, 4.5),
    )


def _worst(layers: Sequence[PredictedLayer]) -> list[PredictedLayer]:
    outside = [layer for layer in layers if abs(layer.error_frac) > BAND_FRAC]
    return sorted(outside, key=lambda layer: -abs(layer.error_frac))[:_NAMED]


def _paint_predictions(axes: Axes, layers: Sequence[PredictedLayer], *, label: str, colour: str, face: str) -> None:
    for layer in layers:
        measured, predicted = layer.measured_s, layer.predicted_s
        bars = axes.errorbar(
            measured.median,
            predicted.median,
            xerr=whiskers(measured.median, measured.low, measured.high),
            yerr=whiskers(predicted.median, predicted.low, predicted.high),
            fmt="o",
            markersize=5.0,
            color=colour,
            markerfacecolor=face,
            elinewidth=0.9,
            label=label if layer is layers[0] else None,
        )
        tooltip(
            bars.lines[0],
            f"{layer.name}: predicted {seconds(predicted.median)}, measured {seconds(measured.median)} "
            f"({percent(layer.error_frac)})",
        )
