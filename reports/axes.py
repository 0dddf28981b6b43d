"""Axes that carry units: ticks labelled as the tables are, and names beside points."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

_DENSE_TICKS_SPAN = {"x": 300.0, "y": 1000.0}
"""Up to this ratio of the ends of an axis, ticks at 1, 2 and 5 find room; beyond it only powers of ten do."""
_POINT_PX = 6.0
_PLACES = (
    (6, -4, "left", "top"),
    (-6, -4, "right", "top"),
    (-6, 4, "right", "bottom"),
    (6, 4, "left", "bottom"),
    (0, -9, "center", "top"),
    (0, 9, "center", "bottom"),
)
"""Where a name may stand beside its point: offset in points, alignment."""


def logarithmic(axes: Axes, name: Literal["x", "y"], *, low: float, high: float, label: Callable[[float], str]) -> None:
    """Make the axis of that name logarithmic from `low` to `high`, its ticks written by `label`."""
    axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axis: Axis = axes.xaxis if name == "x" else axes.yaxis
    subs = (1.0, 2.0, 5.0) if high / low <= _DENSE_TICKS_SPAN[name] else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(_formatter(label))
    axis.set_minor_formatter(NullFormatter())


def linear(axis: Axis, *, label: Callable[[float], str]) -> None:
    """A few round ticks, written by `label`."""
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(_formatter(label))


def whiskers(median: float, low: float, high: float) -> list[list[float]]:
    """Error bars as matplotlib takes them, [[below], [above]].

    An interval from held-out residuals need not contain the median of its prediction; no bar is shown on that side.
    """
    return [[max(median - low, 0.0)], [max(high - median, 0.0)]]


def settle_layout(axes: Axes) -> None:
    """Lay the figure out for good, as far as slopes on paper and room for names are concerned."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()


def name_points(
    axes: Axes, names: Iterable[tuple[str, float, float]], *, points: Iterable[tuple[float, float]]
) -> None:
    """Write names beside points, the first ones first; a name without room is left out.

    The layout must be settled.

    Parameters
    ----------
    names : iterable of (name, x, y)
    points : iterable of (x, y)
        All points of the plot, which no name may cover; nor may it cover text that is there already.
    """
    taken = [text.get_window_extent() for text in axes.texts]
    for x, y in axes.transData.transform(list(points)):
        taken.append(Bbox.from_bounds(x - _POINT_PX / 2, y - _POINT_PX / 2, _POINT_PX, _POINT_PX))
    for name, x, y in names:
        for dx, dy, horizontal, vertical in _PLACES:
            text = axes.annotate(
                name, (x, y), xytext=(dx, dy), textcoords="offset points", ha=horizontal, va=vertical, fontsize=7.5
            )
            box = text.get_window_extent()
            if not box.count_overlaps(taken) and axes.bbox.contains(box.x0, box.y0) and box.x1 <= axes.bbox.x1:
                taken.append(box)
                break
            text.remove()


def _formatter(label: Callable[[float], str]) -> FuncFormatter:
    return FuncFormatter(lambda value, _: _round_label(label(value)))


def _round_label(text: str) -> str:
    """``1.00 ms`` is ``1 ms`` at a tick, and zero needs no unit."""
    if re.match(r"0(\.0+)?\b", text) and not re.match(r"0\.0*[1-9]", text):
        return "0"
    return re.sub(r"(\.\d*?)0+(?!\d)", lambda match: match[1].rstrip("."), text)
