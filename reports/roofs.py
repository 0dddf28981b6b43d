"""Roofs of a roofline plot: what bandwidths and units allow, by intensity."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from matplotlib.axes import Axes

from ..profiles.schema import Ceiling, MachineProfile
from .format import with_prefix
from .machine import short_name
from .svg import INK_COLOUR

LOADS = tuple(f"bandwidth_byte_per_s:{level}" for level in ("l1", "l2", "l3", "dram"))
"""Loads bound the kernels; roofs of stores and copies would only crowd the plot."""


def bandwidth_roofs(profile: MachineProfile) -> list[Ceiling]:
    """Load bandwidths at the profile's thread count."""
    return [each for each in profile.ceilings if each.threads == profile.threads and each.name in LOADS]


def rate_roofs(profile: MachineProfile, units: Collection[str]) -> list[Ceiling]:
    """Arithmetic peaks of some execution units at the profile's thread count."""
    names = {f"flop_per_s:{unit}" for unit in units}
    return [each for each in profile.ceilings if each.threads == profile.threads and each.name in names]


def paint_roofs(axes: Axes, bandwidths: list[Ceiling], rates: list[Ceiling]) -> None:
    """Draw and name the roofs; the limits and the layout of the axes must be settled."""
    (x0, y0), (x1, y1) = axes.transData.transform([(1.0, 1.0), (10.0, 10.0)])
    slope = math.atan2(y1 - y0, x1 - x0)
    peak = max(rate.value for rate in rates)
    x_low, x_high = axes.get_xlim()
    y_low, _ = axes.get_ylim()
    for bandwidth in bandwidths:
        ends = np.array([x_low, peak / bandwidth.value])
        axes.plot(ends, bandwidth.value * ends, color=INK_COLOUR, linewidth=1.0, zorder=1)
        # Where the line enters the plot; no two bandwidths enter at the same place.
        start = max(x_low, y_low / bandwidth.value)
        axes.annotate(
            f"{short_name(bandwidth)} {with_prefix(bandwidth.value, 'B/s')}",
            (start, bandwidth.value * start),
            xytext=(8 * math.cos(slope), 8 * math.sin(slope)),
            textcoords="offset points",
            rotation=math.degrees(slope),
            rotation_mode="anchor",
            va="bottom",
            fontsize=7.5,
            color=INK_COLOUR,
        )
    for rate in rates:
        start = rate.value / max(bandwidth.value for bandwidth in bandwidths)
        axes.plot([start, x_high], [rate.value, rate.value], color=INK_COLOUR, linewidth=1.0, zorder=1)
        axes.annotate(
            f"{short_name(rate)} {with_prefix(rate.value, 'flop/s')}",
            (x_high, rate.value),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=INK_COLOUR,
        )
