"""Roofline of a machine profile: its ceilings, and where every family of kernels was measured under them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes

from ..kernels.dense import UNITS
from ..kernels.spec import KernelSpec
from ..profiles.schema import KernelSample, MachineProfile
from .axes import logarithmic, settle_layout
from .format import significant, with_prefix
from .plot_roofline import intensity_of
from .roofs import bandwidth_roofs, paint_roofs, rate_roofs
from .svg import SERIES_COLOURS, inline_svg, standalone_svg

_MARKERS = "osD^vPX"
"""As many as are no multiple of the colours: five, so that no two families look alike."""
_MARGIN = 1.6
"""Factor between the outermost point or roof and the edge of the plot."""


def plot_profile(profile: MachineProfile, registry: Sequence[KernelSpec]) -> str | None:
    """The plot as a file of its own, or None where the profile has no samples or ceilings at its thread count.

    Samples at fewer threads are left out: the roofs are those of the profile's thread count.
    """
    kinds = {kernel.name: kernel.name.split("_")[1] for kernel in registry}
    series: dict[str, list[KernelSample]] = defaultdict(list)
    for sample in profile.samples:
        if sample.problem.threads == profile.threads and sample.problem.flop_useful > 0.0:
            series[kinds.get(sample.kernel, "others")].append(sample)
    units = {UNITS[sample.problem.dtype] for found in series.values() for sample in found}
    bandwidths, rates = bandwidth_roofs(profile), rate_roofs(profile, units)
    if not series or not bandwidths or not rates:
        return None
    places = {
        name: [(intensity_of(each.problem), each.problem.flop_useful / each.time_s.median) for each in found]
        for name, found in series.items()
    }
    x = [place[0] for found in places.values() for place in found]
    y = [place[1] for found in places.values() for place in found]
    peak = max(rate.value for rate in rates)
    slowest, fastest = (pick(each.value for each in bandwidths) for pick in (min, max))

    def paint(axes: Axes) -> None:
        logarithmic(
            axes, "x", low=min(*x, peak / fastest) / _MARGIN, high=max(*x, peak / slowest) * _MARGIN, label=significant
        )
        logarithmic(
            axes,
            "y",
            low=min(y) / _MARGIN,
            high=max(*y, peak) * _MARGIN,
            label=lambda rate: with_prefix(rate, "flop/s"),
        )
        axes.set_xlabel("useful flop per compulsory byte (flop/byte)")
        axes.set_ylabel("useful work per second, measured")
        # The largest family first, so that the others lie on top of it.
        for number, (name, found) in enumerate(sorted(places.items(), key=lambda pair: -len(pair[1]))):
            axes.plot(
                *zip(*found, strict=True),
                _MARKERS[number % len(_MARKERS)],
                color=SERIES_COLOURS[number % len(SERIES_COLOURS)],
                markersize=3.2,
                markerfacecolor="none",
                markeredgewidth=0.7,
                label=name,
            )
        axes.figure.legend(loc="outside upper left", ncols=4, handletextpad=0.3, columnspacing=1.2)
        settle_layout(axes)
        paint_roofs(axes, bandwidths, rates)

    drawn: Markup = inline_svg(
        paint,
        key="profile",
        label=f"Roofline plot of {len(x)} kernel timings under the ceilings of {profile.fingerprint.cpu_model}.",
        size_in=(7.2, 5.2),
    )
    return standalone_svg(drawn)
