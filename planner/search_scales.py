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
from numpy.typing import NDArray

from ..kernels.progress import Progress, silent
from .carry_zeros import Stitching

Floats = NDArray[np.float64]
Solve = Callable[[Mapping[str, float]], Sequence[Stitching] | None]
"""From a factor for each layer and width to the solver's plan for each target, or None where there is none."""
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
        By layer and width; their geometric mean is 1.
    loss : tuple of float
        Of the stitched network under each target's plan.
    first_loss : tuple of float
        Under the first factors.
    plans : tuple
        Of each target, under the best factors.
    evaluated : int
        Stitched networks whose loss was measured.
    """

    scale: Mapping[str, float]
    loss: tuple[float, ...]
    first_loss: tuple[float, ...]
    plans: tuple[Stitching, ...]
    evaluated: int


def draw_factor(generator: np.random.Generator) -> float:
    """Around 1, within a factor of 2.7 two times of three: losses of single layers are about right."""
    return math.exp(generator.normal())


def search_scales(
    names: Sequence[str],
    *,
    solve: Solve,
    stitched_loss: Callable[[Stitching], float],
    budget_s: float,
    most_evaluated: int | None = None,
    draw: Draw = draw_factor,
    seed: int = 0,
    progress: Progress = silent,
) -> Search | None:
    """The factors whose plans lose least in the stitched network, summed over the targets; at worst all ones.

    Parameters
    ----------
    names : sequence of str
        What gets factors: layers and widths.
    solve : callable
        The plans of all targets under some factors.
    stitched_loss : callable
        Rise of the loss of the network with all of a plan's layers pruned, nat.
    budget_s : float
        Wall-clock time, seconds.
    most_evaluated : int, optional
        Stitched networks, whatever the time: for comparisons of equal effort.
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
        in_time = (time.perf_counter() - start) / budget_s if budget_s > 0.0 else 1.0
        return in_time if most_evaluated is None else max(in_time, len(known) / most_evaluated)

    def attempt(scale: Floats) -> _Attempt | None:
        plans = solve(dict(zip(names, scale.tolist(), strict=True)))
        if plans is None:
            return None
        for plan in plans:
            if plan not in known:
                known[plan] = stitched_loss(plan)
        progress("plan search", min(spent_frac(), 1.0), 1.0)
        return _Attempt(scale=scale, plans=tuple(plans), loss=tuple(known[plan] for plan in plans))

    first = best = attempt(np.ones(len(names)))
    if first is None or best is None:
        return None
    while spent_frac() < RANDOM_SHARE:
        tried = attempt(np.array([draw(generator) for _ in names]))
        if tried is not None and tried.total < best.total:
            best = tried
    changed = max(1, round(NEIGHBOURHOOD_FRAC * len(names)))
    failures = 0
    while spent_frac() < 1.0:
        scale = best.scale.copy()
        for number in generator.choice(len(names), size=changed, replace=False):
            scale[number] = draw(generator)
        tried = attempt(scale)
        if tried is not None and tried.total < best.total:
            best, failures = tried, 0
            continue
        failures += 1
        if failures >= PATIENCE:
            changed, failures = max(1, changed - 1), 0
    progress("plan search", 1.0, 1.0)
    middle = float(np.exp(np.log(np.maximum(best.scale, 1e-12)).mean()))
    return Search(
        scale=dict(zip(names, (best.scale / middle).tolist(), strict=True)),
        loss=best.loss,
        first_loss=first.loss,
        plans=best.plans,
        evaluated=len(known),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Attempt:
    scale: Floats
    plans: tuple[Stitching, ...]
    loss: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.loss)
