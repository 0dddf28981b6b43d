"""Search factors on the layers' losses under which the solver's plan is best for the network as a whole.

Losses of single layers do not quite add up in the network that has all of them pruned: some layers' errors cancel or
are repaired downstream, others amplify. What counts is the loss of the stitched network, and the solver finds its way
there through one factor a layer: a random search, then changes of a few factors at a time for as long as they help.

References
----------
Frantar & Alistarh, SPDY, ICML 2022 (arXiv 2201.13096), section 3.3 and algorithm 2: 100 random starts, then
neighbourhoods of a tenth of the coefficients, one less each time none helps any more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.progress import Progress, silent
from .ablation import WeightChoice

Stitching = tuple[WeightChoice, ...]
"""The pruned layers of one plan."""
Solve = Callable[[Mapping[str, float]], Sequence[Stitching] | None]
"""From a factor for each layer to the solver's plan for each target, or None where there is none."""
Draw = Callable[[np.random.Generator], float]

RANDOM_SHARE = 0.3
"""Of the search's time, for random starts."""
NEIGHBOURHOOD_FRAC = 0.1
PATIENCE = 20
"""Changes of so many factors that do not help, before one factor less is changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """The best factors found.

    Attributes
    ----------
    scale : mapping
        By layer; their geometric mean is 1.
    loss : tuple of float
        Of the stitched network under each target's plan.
    first_loss : tuple of float
        Under the first factors.
    evaluated : int
        Stitched networks whose loss was measured.
    """

    scale: Mapping[str, float]
    loss: tuple[float, ...]
    first_loss: tuple[float, ...]
    evaluated: int


def draw_factor(generator: np.random.Generator) -> float:
    """Around 1, within a factor of 2.7 two times of three: losses of single layers are about right."""
    return math.exp(generator.normal())


def search_scales(
    layers: Sequence[str],
    *,
    solve: Solve,
    stitched_loss: Callable[[Stitching], float],
    budget_s: float,
    draw: Draw = draw_factor,
    seed: int = 0,
    progress: Progress = silent,
) -> Search | None:
    """The factors whose plans lose least in the stitched network, summed over the targets; at worst all ones.

    Parameters
    ----------
    solve : callable
        The plans of all targets under some factors.
    stitched_loss : callable
        Rise of the loss of the network with all of a plan's layers pruned, nat.
    budget_s : float
        Wall-clock time, seconds.
    draw : callable
        A random factor.

    Returns
    -------
    Search or None
        None where no target can be met.
    """
    generator = np.random.default_rng(seed)
    start = time.perf_counter()
    known: dict[Stitching, float] = {}

    def spent_frac() -> float:
        return (time.perf_counter() - start) / budget_s if budget_s > 0.0 else 1.0

    def losses(scale: np.ndarray) -> tuple[float, ...] | None:
        plans = solve(dict(zip(layers, scale.tolist(), strict=True)))
        if plans is None:
            return None
        for plan in plans:
            if plan not in known:
                known[plan] = stitched_loss(plan)
        progress("plan search", min(spent_frac(), 1.0), 1.0)
        return tuple(known[plan] for plan in plans)

    best = np.ones(len(layers))
    first = losses(best)
    if first is None:
        return None
    least = first
    while spent_frac() < RANDOM_SHARE:
        tried = np.array([draw(generator) for _ in layers])
        found = losses(tried)
        if found is not None and sum(found) < sum(least):
            best, least = tried, found
    changed = max(1, round(NEIGHBOURHOOD_FRAC * len(layers)))
    failures = 0
    while spent_frac() < 1.0:
        tried = best.copy()
        for number in generator.choice(len(layers), size=changed, replace=False):
            tried[number] = draw(generator)
        found = losses(tried)
        if found is not None and sum(found) < sum(least):
            best, least, failures = tried, found, 0
            continue
        failures += 1
        if failures >= PATIENCE:
            changed, failures = max(1, changed - 1), 0
    progress("plan search", 1.0, 1.0)
    middle = float(np.exp(np.log(np.maximum(best, 1e-12)).mean()))
    return Search(
        scale=dict(zip(layers, (best / middle).tolist(), strict=True)),
        loss=least,
        first_loss=first,
        evaluated=len(known),
    )
