"""The widths worth asking about: the edges of the staircase that time makes over the number of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

MOST_ASKED = 64
"""Counts whose time is predicted, evenly over all there are."""


def asked_counts(units: int) -> tuple[int, ...]:
    """Numbers of kept units whose time is predicted, ascending; the last is `units`."""
    step = -(-units // MOST_ASKED)
    return tuple(range(units, 0, -step))[::-1]


def staircase(counts: Sequence[int], times_s: Sequence[float], *, most: int) -> tuple[int, ...]:
    """The counts than which no wider one is as fast, at most so many of them.

    Vector kernels compute whole registers and threads whole tiles: a width in the middle of a step gives away channels
    for nothing. Where more edges are left than wanted, those are kept whose times are spread most evenly.

    Parameters
    ----------
    counts : sequence of int
        Ascending.
    times_s : sequence of float
        Predicted time of all that depends on the width, seconds.
    """
    edges: list[int] = []
    fastest_s = np.inf
    for number in reversed(range(len(counts))):
        if times_s[number] < fastest_s:
            fastest_s = times_s[number]
            edges.append(number)
    edges.reverse()
    if len(edges) > most:
        times = np.array([times_s[number] for number in edges])
        wanted = np.linspace(times[0], times[-1], most)
        nearest = {int(np.abs(times - time).argmin()) for time in wanted}
        edges = [edges[number] for number in sorted(nearest)]
    return tuple(counts[number] for number in edges)


def levels_by_time(
    units: int, time_s: Callable[[int], float], *, most: int, removable: bool, narrowable: bool
) -> tuple[int, ...]:
    """Numbers of units that a group may keep, ascending; 0 among them where its branch can go."""
    counts = asked_counts(units) if narrowable else (units,)
    levels = staircase(counts, [time_s(count) for count in counts], most=most)
    if levels[-1] != units:
        levels = (*levels, units)
    return (0, *levels) if removable else levels
