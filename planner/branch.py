"""Close the gap that prices leave: split the options of one choice after another, and bound each part by its prices.

The mixture of assignments that goes with the best prices shows what keeps it from being one assignment: a choice in
which it is of two minds. Splitting that one in two gives two smaller knapsacks, each with a higher bound. The part with
the least bound comes first; parts that cannot hold anything better are dropped.

References
----------
Barnhart et al., Branch-and-price: column generation for solving huge integer programs, Operations Research 46, 1998.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .eliminate import Elimination
from .knapsack import GAP_FRAC, LEAST_UNIT, TOLERANCE_FRAC, Floats, Indices, Knapsack
from .prices import SLACK, Prices, best_prices, greatest_loss
from .relax import Relaxation, offer_improved, renumbered, rises

CLOSED_FRAC = 0.9 * GAP_FRAC
"""Of the best loss: parts that could improve it by less are dropped."""
CLOSE_FRAC = 0.1
"""Of the gap: bounds of parts are raised as far as this."""
NODES_FIRST = 10.0
"""How much more the doubt about a width counts than one about a single layer."""
MOST_SEEN = 30
"""Assignments that a part inherits from the one that it was split from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """Some of the options, [options] of the whole knapsack, and assignments seen among them."""

    numbers: Indices
    seen: Sequence[Indices]
    prices: Prices | None


def branch(knapsack: Knapsack, relaxed: Relaxation, *, budget_s: float, deadline: float) -> None:
    """Improve the assignment and the bound until they meet, or until the deadline (of `time.perf_counter`)."""
    limit_s = budget_s * (1.0 + TOLERANCE_FRAC)
    turn = 0
    waiting: list[tuple[float, int, _Part]] = [
        (relaxed.bound, turn, _Part(numbers=relaxed.left, seen=relaxed.seen, prices=None))
    ]
    dropped = np.inf
    while waiting and time.perf_counter() < deadline:
        below, _, part = heapq.heappop(waiting)
        if below >= _enough(relaxed):
            dropped = min(dropped, below)
            break
        bound, halves = _split(knapsack, relaxed, part, below=below, limit_s=limit_s, deadline=deadline)
        bound = max(bound, below)
        if not halves or bound >= _enough(relaxed):
            dropped = min(dropped, bound)
        else:
            for half in halves:
                turn += 1
                heapq.heappush(waiting, (bound, turn, half))
        open_bound = min((each[0] for each in waiting), default=np.inf)
        relaxed.bound = max(relaxed.bound, min(open_bound, dropped, relaxed.loss))
    if not waiting and relaxed.chosen is None:
        relaxed.infeasible = True


def _enough(relaxed: Relaxation) -> float:
    """Bound from which on a part holds nothing that is noticeably better."""
    return relaxed.loss * (1.0 - CLOSED_FRAC) if relaxed.chosen is not None else np.inf


def _split(
    knapsack: Knapsack, relaxed: Relaxation, part: _Part, *, below: float, limit_s: float, deadline: float
) -> tuple[float, list[_Part]]:
    """The bound of a part, and its halves; none where it holds nothing better than what is known."""
    numbers = part.numbers
    rest = knapsack.restricted(_mask(len(knapsack.layer), numbers))
    elimination = Elimination(rest)
    start = renumbered(part.seen, numbers) or [elimination.cheapest(rest.median_s)[1]]
    found: list[Indices] = []
    priced = best_prices(
        rest,
        elimination,
        limit_s=limit_s,
        seen=start,
        visit=found.append,
        deadline=deadline,
        enough=_enough(relaxed),
        close=CLOSE_FRAC * (relaxed.loss - below) if relaxed.chosen is not None else 0.0,
        first=part.prices,
    )
    if priced.bound > greatest_loss(rest):
        return np.inf, []
    new = [numbers[chosen] for chosen in found]
    offer_improved(relaxed, knapsack, new, limit_s)
    if priced.bound >= _enough(relaxed):
        return priced.bound, []
    left = priced.bound + rises(rest, elimination, priced.prices) <= relaxed.loss * (1.0 + SLACK) + LEAST_UNIT
    if not np.isin(np.arange(rest.layers), rest.layer[left]).all():
        return relaxed.loss, []
    lower = _lower_half(rest, priced.shares, left)
    if lower is None:
        # One assignment is all that is left.
        only = numbers[left]
        return (relaxed.loss if knapsack.upper_s(only) <= limit_s else np.inf), []
    split = rest.layer == rest.layer[np.flatnonzero(lower)[0]]
    seen = [*new, *part.seen][:MOST_SEEN]
    halves = (left & (~split | lower), left & ~lower)
    return priced.bound, [_Part(numbers=numbers[half], seen=seen, prices=priced.prices) for half in halves]


def _lower_half(rest: Knapsack, shares: Floats, left: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """[options]: of the choice that the mixture is least sure of, the options of less loss; None if none is open."""
    open_choices = np.bincount(rest.layer[left], minlength=rest.layers) > 1
    if not open_choices.any():
        return None
    mean = np.bincount(rest.layer, shares * rest.loss, rest.layers)
    spread = np.bincount(rest.layer, shares * (rest.loss - mean[rest.layer]) ** 2, rest.layers)
    nodes = np.isin(np.arange(rest.layers), [link.node for link in rest.links])
    weight = np.where(open_choices, spread * np.where(nodes, NODES_FIRST, 1.0), -1.0)
    choice = int(weight.argmax())
    own = left & (rest.layer == choice)
    lower: NDArray[np.bool_] = own & (rest.loss <= mean[choice])
    if lower.any() and (own & ~lower).any():
        return lower
    most = np.flatnonzero(own)[np.argmax(shares[own])]
    return np.arange(len(rest.layer)) == most


def _mask(count: int, numbers: Indices) -> NDArray[np.bool_]:
    mask = np.zeros(count, dtype=bool)
    mask[numbers] = True
    return mask
