"""Solve the knapsack by prices on time, under which links and layers come apart.

The best prices (`prices`) give a bound, and the assignments that are cheapest on the way to them are solutions where
they keep the budget, improved by exchanging single options. Options that no better assignment can take are then left
out, and with them gone the bound is higher. What remains between the bound and the best solution is the gap.

References
----------
Fisher, The Lagrangian relaxation method for solving integer programming problems, Management Science 27, 1981.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from .eliminate import Elimination
from .knapsack import GAP_FRAC, LEAST_UNIT, TOLERANCE_FRAC, Floats, Indices, Knapsack, Solution, found, nothing
from .prices import SLACK, Prices, best_prices, greatest_loss

ROUNDS = 6
"""Bounds, each from the options that the one before has left."""
SHRINK_FRAC = 0.9
"""Of the options: where more are left, the next bound would hardly be higher."""
TIME_GAP_FRAC = 1e-3
"""Of the fastest assignment."""
TRIED = 4
"""Of the assignments that keep the budget, so many of least loss are improved by exchanges."""


@dataclass(slots=True, kw_only=True, eq=False)
class Relaxation:
    """What the Lagrangian tells; filled while prices are tried.

    Attributes
    ----------
    bound : float
        No assignment within the budget has less loss.
    chosen : array or None
        Best assignment within the budget.
    prices : Prices or None
        That prove the bound with all options; None where no price was needed.
    infeasible : bool
        No assignment keeps the budget; proved.
    left : array
        Options that a better assignment may take.
    seen : list of array
        Assignments that were cheapest under some prices, the last ones first.
    """

    bound: float = 0.0
    chosen: Indices | None = None
    loss: float = np.inf
    prices: Prices | None = None
    infeasible: bool = False
    left: Indices = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    seen: list[Indices] = field(default_factory=list)


def solve_by_relaxation(knapsack: Knapsack, *, budget_s: float, time_limit_s: float = 30.0) -> Solution:
    """The assignment of least loss that needs at most `budget_s`, by prices alone.

    Its gap is whatever the relaxation leaves; status "optimal" only where that is at most `GAP_FRAC`.
    """
    start = time.perf_counter()
    relaxed = relax(knapsack, budget_s=budget_s, time_limit_s=time_limit_s)
    if relaxed.infeasible:
        return nothing(f"no assignment needs at most {budget_s:.3g} s", start)
    if relaxed.chosen is None:
        # Prices alone may miss the few that keep a budget close to the least one: the question is open.
        return replace(
            nothing("no assignment within the budget was found", start), status="time_limit", bound=relaxed.bound
        )
    near = relaxed.loss - relaxed.bound <= GAP_FRAC * relaxed.loss
    return found("optimal" if near else "time_limit", knapsack, relaxed.chosen, bound=relaxed.bound, start=start)


def relax(knapsack: Knapsack, *, budget_s: float, time_limit_s: float) -> Relaxation:
    """Bound and solution from prices on time."""
    deadline = time.perf_counter() + time_limit_s
    relaxed = Relaxation()
    limit_s = budget_s * (1.0 + TOLERANCE_FRAC)
    elimination = Elimination(knapsack)
    least_s, quickest = fastest_bound(knapsack, elimination)
    if least_s > limit_s:
        relaxed.infeasible = True
        return relaxed
    _offer(relaxed, knapsack, quickest, limit_s)
    _, lossless = elimination.cheapest(knapsack.loss)
    relaxed.bound = max(float(knapsack.loss[lossless].sum()), 0.0)
    if _offer(relaxed, knapsack, lossless, limit_s):
        return relaxed
    relaxed.seen = [quickest, lossless]
    rest, relaxed.left = knapsack, np.arange(len(knapsack.layer))
    for _ in range(ROUNDS):
        found: list[Indices] = []
        priced = best_prices(
            rest,
            elimination,
            limit_s=limit_s,
            seen=renumbered(relaxed.seen, relaxed.left),
            visit=found.append,
            deadline=deadline,
            enough=np.inf,
        )
        if priced.bound > greatest_loss(rest):
            # No better assignment is left, or none at all.
            relaxed.infeasible = relaxed.chosen is None
            relaxed.bound = relaxed.loss if relaxed.chosen is not None else 0.0
            break
        relaxed.prices = priced.prices if relaxed.prices is None else relaxed.prices
        relaxed.bound = max(relaxed.bound, min(priced.bound, relaxed.loss))
        new = [relaxed.left[chosen] for chosen in found]
        relaxed.seen = [*new, *relaxed.seen]
        offer_improved(relaxed, knapsack, new, limit_s)
        if relaxed.chosen is None or relaxed.loss - relaxed.bound <= 0.1 * GAP_FRAC * relaxed.loss:
            break
        stays = priced.bound + rises(rest, elimination, priced.prices) <= relaxed.loss * (1.0 + SLACK) + LEAST_UNIT
        stays |= np.isin(relaxed.left, relaxed.chosen)
        shrinks = stays.sum() <= SHRINK_FRAC * len(stays)
        rest, relaxed.left = rest.restricted(stays), relaxed.left[stays]
        if not shrinks or time.perf_counter() > deadline:
            break
        elimination = Elimination(rest)
    return relaxed


def renumbered(seen: Sequence[Indices], numbers: Indices) -> list[Indices]:
    """Those assignments that have only options that are left, by the numbers of these."""
    found = [np.searchsorted(numbers, chosen) for chosen in seen]
    return [
        rows
        for rows, chosen in zip(found, seen, strict=True)
        if rows.max() < len(numbers) and np.array_equal(numbers[rows], chosen)
    ]


def offer_improved(relaxed: Relaxation, knapsack: Knapsack, found: Sequence[Indices], limit_s: float) -> None:
    """Keep the best of some assignments within the budget, the most promising of them improved by exchanges."""
    within = sorted(
        (chosen for chosen in found if _offer(relaxed, knapsack, chosen, limit_s)),
        key=lambda chosen: float(knapsack.loss[chosen].sum()),
    )
    for chosen in within[:TRIED]:
        _offer(relaxed, knapsack, exchange(knapsack, chosen, limit_s=limit_s), limit_s)


def _offer(relaxed: Relaxation, knapsack: Knapsack, chosen: Indices, limit_s: float) -> bool:
    """Keep an assignment if it is the best within the budget; whether it is within."""
    if knapsack.upper_s(chosen) > limit_s:
        return False
    loss = float(knapsack.loss[chosen].sum())
    if loss < relaxed.loss:
        relaxed.chosen, relaxed.loss = chosen, loss
    return True


def rises(knapsack: Knapsack, elimination: Elimination, prices: Prices) -> Floats:
    """[options]: an assignment that takes an option has at least so much loss above the bound of these prices."""
    least = elimination.min_marginals(prices.costs(knapsack))
    rise: Floats = least - least.min()
    return rise


def fastest_bound(knapsack: Knapsack, elimination: Elimination, rounds: int = 8) -> tuple[float, Indices]:
    """(no assignment is faster than this, the fastest one found), in upper quantiles, seconds."""
    direction = np.zeros(len(knapsack.base_spread_s))
    bound_s, best = -np.inf, None
    for _ in range(rounds):
        time_s = knapsack.median_s + direction[knapsack.source] * knapsack.spread_s
        value, chosen = elimination.cheapest(time_s)
        bound_s = max(bound_s, value + knapsack.fixed_s - float(direction @ knapsack.base_spread_s))
        if best is None or knapsack.upper_s(chosen) < knapsack.upper_s(best):
            best = chosen
        towards = direction_of(knapsack, chosen)
        if knapsack.upper_s(best) <= bound_s * (1.0 + TIME_GAP_FRAC / 4.0) or np.allclose(towards, direction):
            break
        direction = towards if not direction.any() else (direction + towards) / 2.0
    assert best is not None
    return bound_s, best


def direction_of(knapsack: Knapsack, chosen: Indices) -> Floats:
    """[sources]: where the shared errors of an assignment point, of length 1."""
    error = knapsack.shared_error_s(chosen)
    return error / max(float(np.linalg.norm(error)), LEAST_UNIT)


def exchange(knapsack: Knapsack, chosen: Indices, *, limit_s: float) -> Indices:
    """Take options of less loss, in the same states as those they replace, while the budget allows."""
    chosen = chosen.copy()
    same = _same_state(knapsack, chosen)
    while True:
        gain = knapsack.loss[chosen][knapsack.layer] - knapsack.loss
        rows = np.flatnonzero(same & (gain > 0.0))
        slower_s = knapsack.median_s[rows] - knapsack.median_s[chosen][knapsack.layer[rows]]
        room_s = limit_s - knapsack.upper_s(chosen)
        rows = rows[slower_s <= 2.0 * room_s]
        for row in rows[np.argsort(-gain[rows], kind="stable")][:64]:
            changed = chosen.copy()
            changed[knapsack.layer[row]] = row
            if knapsack.upper_s(changed) <= limit_s:
                chosen = changed
                break
        else:
            return chosen


def _same_state(knapsack: Knapsack, chosen: Indices) -> NDArray[np.bool_]:
    """[options]: whether an option asks and answers what the chosen one of its layer does."""
    same = np.ones(len(knapsack.layer), dtype=bool)
    for link in knapsack.links:
        for layer, states in ((link.layer, link.asks), (link.node, link.answers)):
            own = knapsack.options_of(layer)
            same[own] &= states == states[np.searchsorted(own, chosen[layer])]
    return same
