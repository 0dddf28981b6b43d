"""Bar chart of every way the whole network was run."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ..runtime.schema import Measurements, NetworkTime
from .axes import linear, whiskers
from .format import seconds
from .svg import DENSE_COLOUR, INK_COLOUR, PLANNED_COLOUR, inline_svg
from .tables import host_and_dtype

_COLOURS = {"dense": DENSE_COLOUR, "planned": PLANNED_COLOUR}
_BAR_IN = 0.27
_BAR_HEIGHT = 0.8
_GAP = 0.7
"""Between the groups of one host and dtype, in bars."""
_ROOM_FOR_LABELS = 1.25
"""Width of the axis over the longest bar."""


def plot_hosts(measurements: Measurements) -> Markup:
    """Measured time of one forward pass, by host, dtype and variant, with 95 % intervals."""
    groups: dict[str, list[NetworkTime]] = {}
    for network in measurements.networks:
        groups.setdefault(host_and_dtype(network), []).append(network)

    def paint(axes: Axes) -> None:
        ticks = []
        position = 0.0
        for networks in groups.values():
            ticks.append(position + (len(networks) - 1) / 2)
            for network in networks:
                _paint_bar(axes, network, position, is_best=_is_best(network, measurements))
                position += 1.0
            position += _GAP
        axes.set_yticks(ticks, list(groups))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0.0, _ROOM_FOR_LABELS * max(network.time_s.high for network in measurements.networks))
        linear(axes.xaxis, label=seconds)
        axes.set_xlabel("measured time of one forward pass (shorter is better)")
        axes.figure.legend(
            handles=[Patch(color=colour, label=variant) for variant, colour in _COLOURS.items()],
            loc="outside upper left",
            ncols=len(_COLOURS),
        )

    height_in = 0.9 + _BAR_IN * (len(measurements.networks) + _GAP * (len(groups) - 1))
    return inline_svg(paint, key="hosts", label=_describe(measurements), size_in=(4.9, height_in))


def _paint_bar(axes: Axes, network: NetworkTime, position: float, *, is_best: bool) -> None:
    time_s = network.time_s
    axes.barh(
        position,
        time_s.median,
        height=_BAR_HEIGHT,
        color=_COLOURS[network.variant],
        alpha=1.0 if is_best else 0.45,
        xerr=whiskers(time_s.median, time_s.low, time_s.high),
        error_kw={"ecolor": INK_COLOUR, "elinewidth": 1.0, "capsize": 2.0},
    )
    axes.annotate(
        seconds(time_s.median) + (f"  best {network.variant}" if is_best else ""),
        (time_s.high, position),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        fontweight="bold" if is_best else "normal",
    )


def _is_best(network: NetworkTime, measurements: Measurements) -> bool:
    return network in (measurements.best_dense, measurements.best_planned)


def _describe(measurements: Measurements) -> str:
    times = ", ".join(
        f"{network.variant} {network.host} {network.dtype} {seconds(network.time_s.median)}"
        for network in measurements.networks
    )
    return f"Bar chart of the measured time of one forward pass: {times}."
