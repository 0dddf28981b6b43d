"""Prices on time and on shared errors under which no assignment within the budget is cheaper than a bound.

An assignment that keeps the budget T has ``t + |e| <= 0``, with t its median time less T and e its shared errors (see
`solve`). So with a price p on seconds and prices u on the errors, no longer than p, ``loss + p t + u . e <= loss`` for
it, and the least of the left side over all assignments is a bound from below; elimination finds it exactly. The best
prices are those of a linear programme over mixtures of the assignments seen so far: least loss of a mixture whose mean
t and e keep the budget. Its dual values are the next prices, the assignment that is cheapest under them joins the
mixture, and where none is cheaper than the mixture says, the prices are the best. The norm is handled as in `solve`,
by a limit ``t + r . e <= 0`` for each direction r in which a mixture broke it. Prices are tried half-way between the
best ones known and the programme's, which swing.

References
----------
Dantzig & Wolfe, Decomposition principle for linear programs, Operations Research 8, 1960; Wentges, Weighted
Dantzig-Wolfe decomposition for linear mixed-integer programming, ITOR 4, 1997 (the mean of prices).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog

from .eliminate import Elimination
from .knapsack import LEAST_UNIT, Floats, Indices, Knapsack

MOST_ROUNDS = 150
CLOSE_FRAC = 1e-4
"""Of the programme's value: prices that give a bound so near to it are the best."""
BROKEN_FRAC = 1e-5
"""Of the budget: a mixture that breaks the norm by more gets a limit in its direction."""
FIRST_DIRECTIONS = 3
"""Of the assignments to begin with, so many give a direction."""
EARLY_FRAC = 1e-3
"""Of the budget, what that which stands in for an assignment within it leaves over: little, so that prices can rise."""
MOST_DIRECTIONS = 20
"""New ones a round; later rounds go on."""
SLACK = 1e-9
"""Rounding of sums of float64, in parts of the sum."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prices:
    """What time costs.

    Attributes
    ----------
    second : float
        Of a second of median time, in units of loss.
    shared : array
        [sources], of a second of each shared error; no longer than `second`.
    """

    second: float
    shared: Floats

    def costs(self, knapsack: Knapsack) -> Floats:
        """[options]: loss, and what the time costs."""
        return knapsack.loss + self.second * knapsack.median_s + self.shared[knapsack.source] * knapsack.spread_s

    def bound(self, knapsack: Knapsack, value: float, limit_s: float) -> float:
        """Least loss within the budget where the least sum of costs is `value`; what rounding may add is taken off."""
        constant = self.second * (knapsack.fixed_s - limit_s) - float(self.shared @ knapsack.base_spread_s)
        return value + constant - SLACK * (abs(value) + abs(constant))

    @property
    def direction(self) -> Floats:
        """[sources]: in which the errors are limited, no longer than 1."""
        return self.shared / max(self.second, LEAST_UNIT)


@dataclass(slots=True, kw_only=True, eq=False)
class _Mixtures:
    """The linear programme over mixtures of assignments.

    The linear solver has absolute tolerances: times are in units of the budget, and losses in units of the least that
    is known to keep it, which can be far below the greatest.

    Attributes
    ----------
    most : float
        More than any assignment has.
    ceiling : float
        Twice the loss of an assignment within the budget; `most` where none is known.
    """

    knapsack: Knapsack
    limit_s: float
    most: float
    ceiling: float
    losses: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    errors: list[Floats] = field(default_factory=list)
    directions: list[Floats] = field(default_factory=list)

    def add(self, chosen: Indices) -> None:
        knapsack, second = self.knapsack, self.limit_s
        loss = float(knapsack.loss[chosen].sum())
        if knapsack.upper_s(chosen) <= self.limit_s:
            self.ceiling = min(self.ceiling, max(2.0 * loss, LEAST_UNIT))
        self.losses.append(loss)
        self.late.append((float(knapsack.median_s[chosen].sum()) + knapsack.fixed_s - self.limit_s) / second)
        self.errors.append(knapsack.shared_error_s(chosen) / second)

    def solve(self) -> tuple[float | None, Prices, Floats]:
        """Least loss of a mixture within the budget, the prices that go with it, and the share of each assignment.

        The loss is None where directions are still missing: it would be too low.
        """
        late, errors = np.array(self.late), np.array(self.errors)
        # Where all that is known is late, something that is not must be there, at a loss that no answer has.
        losses = np.array([*self.losses, self.most]) / self.ceiling
        early = EARLY_FRAC if self.ceiling == self.most else 0.0
        value: float | None = None
        for _ in range(MOST_DIRECTIONS):
            limits = np.array([np.append(late + errors @ direction, -early) for direction in self.directions])
            result = linprog(losses, A_ub=limits, b_ub=np.zeros(len(limits)), A_eq=np.ones((1, len(losses))), b_eq=1.0)
            shares = result.x[:-1]
            mean = shares @ errors
            length = float(np.linalg.norm(mean))
            if shares @ late - early * result.x[-1] + length <= BROKEN_FRAC:
                value = float(result.fun) * self.ceiling
                break
            self.directions.append(mean / max(length, LEAST_UNIT))
        weights = -result.ineqlin.marginals
        weights = np.append(weights, np.zeros(len(self.directions) - len(weights))) * self.ceiling / self.limit_s
        prices = Prices(second=float(weights.sum()), shared=np.asarray(weights @ np.array(self.directions)))
        return value, prices, result.x[:-1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Priced:
    """What the best prices tell.

    Attributes
    ----------
    bound : float
        No assignment within the budget has less loss; above `greatest_loss` where none keeps the budget.
    shares : array
        [options], share of each in the mixture that goes with the prices.
    """

    bound: float
    prices: Prices
    shares: Floats


def best_prices(
    knapsack: Knapsack,
    elimination: Elimination,
    *,
    limit_s: float,
    seen: Sequence[Indices],
    visit: Callable[[Indices], None],
    deadline: float,
    enough: float,
    close: float = 0.0,
    first: Prices | None = None,
) -> Priced:
    """The best bound, and the prices that prove it.

    Parameters
    ----------
    limit_s : float
        The budget with its tolerance, seconds.
    seen : sequence of array
        Assignments to begin with, at least one.
    visit : callable
        Gets every assignment on the way.
    deadline : float
        Of `time.perf_counter`, seconds; the first prices are tried in any case.
    enough : float
        A bound this high need not be raised.
    close : float
        A bound this near to the best one will do, besides `CLOSE_FRAC`.
    first : Prices or None
        To begin with; those of the mixture of what was seen when left out.
    """
    most = 2.0 * greatest_loss(knapsack)
    mixtures = _Mixtures(knapsack=knapsack, limit_s=max(limit_s, LEAST_UNIT), most=most, ceiling=most)
    known = list(seen)
    for number, chosen in enumerate(known):
        mixtures.add(chosen)
        if number < FIRST_DIRECTIONS:
            error = knapsack.shared_error_s(chosen)
            mixtures.directions.append(error / max(float(np.linalg.norm(error)), LEAST_UNIT))
    bound, best = -np.inf, Prices(second=0.0, shared=np.zeros(len(knapsack.base_spread_s)))
    for round_number in range(MOST_ROUNDS):
        value, wanted, weights = mixtures.solve()
        shares = np.zeros(len(knapsack.layer))
        for weight, chosen in zip(weights, known, strict=True):
            shares[chosen] += weight
        if value is not None and value - bound <= max(CLOSE_FRAC * value, close) + LEAST_UNIT:
            break
        prices = wanted if first is None else first
        if round_number:
            prices = Prices(second=(best.second + wanted.second) / 2.0, shared=(best.shared + wanted.shared) / 2.0)
        least, chosen = elimination.cheapest(prices.costs(knapsack))
        reached = prices.bound(knapsack, least, limit_s)
        if reached > bound:
            bound, best = reached, prices
        visit(chosen)
        known.append(chosen)
        mixtures.add(chosen)
        if bound >= enough or time.perf_counter() > deadline:
            break
    return Priced(bound=bound, prices=best, shares=shares)


def greatest_loss(knapsack: Knapsack) -> float:
    """No assignment has more."""
    most = np.zeros(knapsack.layers)
    np.maximum.at(most, knapsack.layer, knapsack.loss)
    return max(float(most.sum()), LEAST_UNIT)
