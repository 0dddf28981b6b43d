"""The front: the least loss that is expected at each time, and where the plan lies on it."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.axes import Axes

from ..planner.schema import Plan
from .axes import linear
from .format import ratio, seconds, significant
from .svg import INK_COLOUR, PLANNED_COLOUR, inline_svg, tooltip


def plot_front(plan: Plan) -> Markup | None:
    """Expected rise of the loss, before training, against the predicted time; None where no front was asked for."""
    if not plan.front:
        return None

    def paint(axes: Axes) -> None:
        times = [point.time_s.median for point in plan.front]
        losses = [point.loss_increase for point in plan.front]
        axes.plot(times, losses, color=PLANNED_COLOUR)
        for point in plan.front:
            (mark,) = axes.plot(
                point.time_s.median, point.loss_increase, "o", color=PLANNED_COLOUR, markersize=4, clip_on=False
            )
            tooltip(
                mark,
                f"{ratio(point.speedup)} asked: {seconds(point.time_s.median)}, "
                f"loss +{significant(point.loss_increase)}, {len(point.layers)} layers pruned",
            )
        totals = plan.totals
        axes.plot(
            totals.planned_time_s.median,
            totals.loss_increase,
            "X",
            color="white",
            markeredgecolor=INK_COLOUR,
            markersize=8,
            label="this plan",
            zorder=5,
            clip_on=False,
        )
        axes.set_ylim(bottom=0.0)
        linear(axes.xaxis, label=seconds)
        linear(axes.yaxis, label=significant)
        axes.set_xlabel("predicted time of one forward pass")
        axes.set_ylabel("expected rise of the loss")
        axes.legend(loc="upper right")

    points = ", ".join(f"{seconds(point.time_s.median)} +{significant(point.loss_increase)}" for point in plan.front)
    return inline_svg(
        paint, key="front", label=f"Least expected loss against predicted time: {points}.", size_in=(4.9, 3.0)
    )
