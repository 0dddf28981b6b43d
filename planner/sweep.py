"""The whole front: the least loss at each of many speedups, from the same losses and times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..kernels.progress import Progress, silent
from .network_time import knapsack_of, sure_speedup, total_time
from .schema import FrontLayer, FrontPoint, FrontWidth
from .solve import fastest
from .targets import SEARCH_TIME_LIMIT_S, Question, solve_question

FEWEST_POINTS = 2
FASTEST_FRAC = 1.0 - 1e-4
"""Of the best speedup: what is asked of the last point, so that rounding cannot put it out of reach."""


def sweep(question: Question, points: int, *, progress: Progress = silent) -> tuple[FrontPoint, ...]:
    """Plans from the dense network's speed to the best that can be reached, in equal ratios of speedup.

    Points that are the same plan as the one before are left out.
    """
    network = question.network
    chosen = fastest(knapsack_of(network, speedup=1.0)).chosen
    assert chosen is not None
    best = max(FASTEST_FRAC * sure_speedup(network, network.picked(chosen)), 1.0)
    found: list[FrontPoint] = []
    for number, speedup in enumerate(np.geomspace(1.0, best, points).tolist()):
        progress("front", number, points)
        for point in _solve(question, speedup):
            if not found or (point.layers, point.widths) != (found[-1].layers, found[-1].widths):
                found.append(point)
    progress("front", points, points)
    return tuple(found)


def _solve(question: Question, speedup: float) -> Iterator[FrontPoint]:
    network = question.network
    solution = solve_question(question.at_speedup(speedup), time_limit_s=SEARCH_TIME_LIMIT_S)
    if solution.chosen is None:
        return
    picked = network.picked(solution.chosen)
    yield FrontPoint(
        speedup=speedup,
        time_s=total_time(network, picked),
        loss_increase=network.loss(picked),
        layers=tuple(
            FrontLayer(
                name=layer.layer.name,
                pattern=option.candidate.pattern,
                sparsity=option.candidate.sparsity,
                kernel=option.candidate.kernel,
            )
            for layer, option in zip(network.layers, picked.layers, strict=True)
            if option.candidate.pattern != "dense"
        ),
        widths=tuple(
            FrontWidth(name=each.group.name, kept=kept)
            for each, kept in zip(network.widths.groups, picked.kept, strict=True)
            if kept < each.group.units
        ),
    )
