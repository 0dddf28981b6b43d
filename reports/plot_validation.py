"""Predicted against measured times of fresh problems, one panel for all, a colour a family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes

from ..kernels.pattern import parse_pattern
from ..perfmodel.schema import CheckedPrediction
from .axes import logarithmic, settle_layout
from .format import seconds
from .svg import FAINT_COLOUR, INK_COLOUR, SERIES_COLOURS, inline_svg

BAND_FRAC = 0.1
MARKERS = "os^Dv"


def plot_validation(predictions: Sequence[CheckedPrediction]) -> Markup:
    """Both axes logarithmic; the band is 10 % around equality."""
    times_s = [time_s for each in predictions for time_s in (each.time_s.median, each.predicted_s.median)]
    low_s, high_s = min(times_s) / 1.3, max(times_s) * 1.3
    series: dict[str, list[CheckedPrediction]] = defaultdict(list)
    for each in predictions:
        kind = "dense" if parse_pattern(each.problem.pattern).is_dense else "sparse"
        series[f"{each.problem.op} {kind}"].append(each)

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
        for (name, found), colour, marker in zip(sorted(series.items()), SERIES_COLOURS, MARKERS, strict=False):
            axes.plot(
                [each.time_s.median for each in found],
                [each.predicted_s.median for each in found],
                marker,
                color=colour,
                markersize=3.0,
                markerfacecolor="none",
                markeredgewidth=0.8,
                label=name,
            )
        axes.set_aspect("equal")
        axes.set_xlabel("measured time of one call")
        axes.set_ylabel("predicted time of one call")
        axes.figure.legend(loc="outside upper left", ncols=3, handletextpad=0.4, columnspacing=1.2)
        settle_layout(axes)

    label = f"Scatter of predicted against measured time of {len(predictions)} kernels on fresh problems."
    return inline_svg(paint, key="validation", label=label, size_in=(6.0, 6.2))
