"""Keep a plan's model small: a price on bytes, raised until the limit holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .knapsack import Solution

Floats = NDArray[np.float64]
STEPS = 10
"""Halvings of the price's range; each solves a knapsack."""
LARGEST_PRICE = 1e9
"""Of the first price: the loss of all layers for the bytes of all layers."""

SolveLosses = Callable[[Floats], Solution]
"""The solver's answer for losses [options]."""


def solve_within_bytes(loss: Floats, size: Floats, solve: SolveLosses, *, limit: float) -> Solution:
    """Least loss with a limit on the bytes of what is chosen, by Lagrange's multiplier.

    Parameters
    ----------
    loss, size : array
        [options]: nat, bytes.
    solve : callable
        Least of other losses within all other limits.
    limit : float
        Bytes of all chosen options together.

    Returns
    -------
    Solution
        Its bound holds; its gap is that of the duality, besides the solver's own.

    References
    ----------
    Everett, Generalized Lagrange multiplier method, Operations Research 11, 1963.
    """

    def size_of(found: Solution) -> float:
        return float(size[list(found.chosen or ())].sum())

    first = solve(loss)
    if first.chosen is None or size_of(first) <= limit:
        return first
    low, high = 0.0, max(float(loss.max()), 1e-12) / max(float(size.max()), 1.0)
    bound = first.bound or 0.0
    best: Solution | None = None
    ceiling = LARGEST_PRICE * high
    while best is None and high <= ceiling:
        found = solve(loss + high * size)
        if found.chosen is not None and size_of(found) <= limit:
            best = found
        else:
            low, high = high, 8.0 * high
    if best is None:
        return replace(
            first,
            status="infeasible",
            message=f"no assignment of at most {limit / 1e6:.3g} MB meets the other targets",
            chosen=None,
            objective=None,
            bound=None,
            gap_frac=None,
        )
    spent_s = first.duration_s + best.duration_s
    for _ in range(STEPS):
        price = (low + high) / 2.0
        found = solve(loss + price * size)
        spent_s += found.duration_s
        if found.bound is not None:
            bound = max(bound, found.bound - price * limit)
        if found.chosen is None or size_of(found) > limit:
            low = price
            continue
        high = price
        if float(loss[list(found.chosen)].sum()) < float(loss[list(best.chosen or ())].sum()):
            best = found
    objective = float(loss[list(best.chosen or ())].sum())
    bound = min(bound, objective)
    return replace(
        best,
        objective=objective,
        bound=bound,
        gap_frac=(objective - bound) / objective if objective > 0.0 else 0.0,
        duration_s=spent_s,
    )
