"""Solve the knapsack by its Lagrangian: a price on time, under which links and layers come apart.

With a price p on seconds and a direction r of the shared errors (a vector no longer than 1), every assignment that
keeps the budget T has ``sum loss + p * (fixed + sum m + r . (s - b) - T) <= sum loss``, because ``r . e <= |e|``. The
least of the left side over all assignments is a bound from below, and under a price the cheapest assignment is found
exactly by elimination. The price is raised until the budget holds; assignments on the way that keep it are solutions,
improved by exchanging single options. What remains between the bound and the best solution is the gap.

References
----------
Fisher, The Lagrangian relaxation method for solving integer programming problems, Management Science 27, 1981.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .eliminate import Elimination
from .knapsack import GAP_FRAC, LEAST_UNIT, TOLERANCE_FRAC, Floats, Indices, Knapsack, Solution, found, nothing

ROUNDS = 4
"""Directions of the shared errors that are tried, each from the best solution of the one before."""
BISECTIONS = 22
"""Of the price, on a logarithmic scale."""
TIME_GAP_FRAC = 1e-3
"""Of the fastest assignment."""
SLACK = 1e-9
"""Rounding of sums of float64, in parts of the sum."""


@dataclass(slots=True, kw_only=True, eq=False)
class Relaxation:
    """What the Lagrangian tells; filled while prices are tried.

    Attributes
    ----------
    bound : float
        No assignment within the budget has less loss.
    chosen : array or None
        Best assignment within the budget.
    price, direction
        Where the bound was found.
    infeasible : bool
        No assignment keeps the budget; proved.
    """

    bound: float = 0.0
    chosen: Indices | None = None
    loss: float = np.inf
    price: float = 0.0
    direction: Floats | None = None
    infeasible: bool = False


def solve_by_relaxation(knapsack: Knapsack, *, budget_s: float, time_limit_s: float = 30.0) -> Solution:
    """The assignment of least loss that needs at most `budget_s`, by prices alone.

    Its gap is whatever the relaxation leaves; status "optimal" only where that is at most `GAP_FRAC`.
    """
    start = time.perf_counter()
    relaxed = relax(knapsack, budget_s=budget_s, time_limit_s=time_limit_s)
    if relaxed.infeasible:
        return nothing(f"no assignment needs at most {budget_s:.3g} s", start)
    if relaxed.chosen is None:
        return nothing("no assignment within the budget was found", start)
    near = relaxed.loss - relaxed.bound <= GAP_FRAC * relaxed.loss
    return found("optimal" if near else "time_limit", knapsack, relaxed.chosen, bound=relaxed.bound, start=start)


def relax(knapsack: Knapsack, *, budget_s: float, time_limit_s: float) -> Relaxation:
    """Bound and solution from prices on time.

    After each round options that no better assignment can take are left out, so that later rounds are quick.
    """
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
    rest, numbers, within = knapsack, np.arange(len(knapsack.layer)), quickest
    direction = direction_of(knapsack, quickest)
    for _ in range(ROUNDS):
        search = _Search(rest, elimination, direction, limit_s)
        within_rest = search.run(relaxed, numbers, deadline)
        if within_rest is not None:
            within = numbers[within_rest]
        _offer(relaxed, knapsack, exchange(knapsack, within, limit_s=limit_s), limit_s)
        if relaxed.chosen is None or relaxed.loss - relaxed.bound <= 0.1 * GAP_FRAC * relaxed.loss:
            break
        if time.perf_counter() > deadline:
            break
        _offer(relaxed, knapsack, exchange(knapsack, relaxed.chosen, limit_s=limit_s), limit_s)
        direction = direction_of(knapsack, relaxed.chosen)
        if search.best_price > 0.0:
            stays = search.bound + search.rises() <= relaxed.loss * (1.0 + SLACK) + LEAST_UNIT
            stays |= np.isin(numbers, relaxed.chosen)
            rest, numbers = rest.restricted(stays), numbers[stays]
            elimination = Elimination(rest)
    return relaxed


def _offer(relaxed: Relaxation, knapsack: Knapsack, chosen: Indices, limit_s: float) -> bool:
    """Keep an assignment if it is the best within the budget; whether it is within."""
    if knapsack.upper_s(chosen) > limit_s:
        return False
    loss = float(knapsack.loss[chosen].sum())
    if loss < relaxed.loss:
        relaxed.chosen, relaxed.loss = chosen, loss
    return True


class _Search:
    """The price at which one direction of the shared errors gives the best bound."""

    def __init__(self, knapsack: Knapsack, elimination: Elimination, direction: Floats, limit_s: float) -> None:
        self._knapsack, self._elimination, self._direction = knapsack, elimination, direction
        self._limit_s = limit_s
        self._time_s = knapsack.median_s + direction[knapsack.source] * knapsack.spread_s
        self._constant_s = knapsack.fixed_s - float(direction @ knapsack.base_spread_s) - limit_s
        self.bound, self.best_price = -np.inf, 0.0

    def run(self, relaxed: Relaxation, numbers: Indices, deadline: float) -> Indices | None:
        """Bisect the price; the last assignment found that keeps the linear budget."""
        knapsack, within = self._knapsack, None
        # At the highest price a second is worth more than all losses together.
        high = 1e3 * max(float(knapsack.loss.sum()), LEAST_UNIT) / max(self._limit_s, LEAST_UNIT)
        low = high * 1e-12
        for _ in range(BISECTIONS):
            if time.perf_counter() > deadline:
                break
            price = float(np.sqrt(low * high))
            value, chosen = self._elimination.cheapest(knapsack.loss + price * self._time_s)
            bound = value + price * self._constant_s
            bound -= SLACK * (abs(value) + abs(price * self._constant_s))
            if bound > self.bound:
                self.bound, self.best_price = bound, price
            # What was left out leads to nothing better than what is known.
            bound = min(bound, relaxed.loss)
            if bound > relaxed.bound:
                relaxed.bound, relaxed.price, relaxed.direction = bound, price, self._direction
            if knapsack.upper_s(chosen) <= self._limit_s and float(knapsack.loss[chosen].sum()) < relaxed.loss:
                relaxed.chosen, relaxed.loss = numbers[chosen], float(knapsack.loss[chosen].sum())
            if float(self._time_s[chosen].sum()) + self._constant_s <= 0.0:
                high, within = price, chosen
            else:
                low = price
        return within

    def rises(self) -> Floats:
        """[options]: by how much the bound rises when an option is taken."""
        least = self._elimination.min_marginals(self._knapsack.loss + self.best_price * self._time_s)
        rise: Floats = least - least.min()
        return rise


def rises(knapsack: Knapsack, elimination: Elimination, relaxed: Relaxation) -> Floats:
    """[options]: an assignment that takes an option has at least so much loss above the bound."""
    if relaxed.direction is None:
        return np.zeros(len(knapsack.layer))
    cost = knapsack.loss + relaxed.price * (knapsack.median_s + relaxed.direction[knapsack.source] * knapsack.spread_s)
    least = elimination.min_marginals(cost)
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
