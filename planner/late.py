"""Directions of limits under which assignments that miss the budget are seen to miss it.

Each of some assignments is late: its median time and the norm of its errors exceed the budget. One direction r shows
it of all of them where ``t + r . e > 0`` for each, with t the median time less the budget; the best one is that for
which the least of these is greatest. By duality it is the direction of the mixture of them that is least late: a linear
programme, to which directions are added in which mixtures were later than it thought. Where a mixture keeps the budget,
no single direction will do, and the assignments are shared out among several.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

from .knapsack import LEAST_UNIT, Floats, Indices, Knapsack

MOST_DIRECTIONS = 4
SHARING_ROUNDS = 3
MOST_LIMITS = 60
"""Of a linear programme."""
CLOSE_FRAC = 1e-7
"""Of the budget."""


class Late:
    """Late assignments, and the directions found for them."""

    def __init__(self, knapsack: Knapsack, limit_s: float) -> None:
        self._knapsack, self._limit_s = knapsack, max(limit_s, LEAST_UNIT)
        self._found: dict[bytes, Floats] = {}
        self.directions: list[Floats] = []

    def add(self, assignments: Sequence[Indices]) -> bool:
        """Remember those that are late; whether any was not known."""
        before = len(self._found)
        for chosen in assignments:
            if self._knapsack.upper_s(chosen) > self._limit_s:
                late_s = self._knapsack.fixed_s + float(self._knapsack.median_s[chosen].sum()) - self._limit_s
                error_s = self._knapsack.shared_error_s(chosen)
                self._found[chosen.tobytes()] = np.append(late_s, error_s) / self._limit_s
        return len(self._found) > before

    def separate(self, known: Floats) -> None:
        """Find directions for all that is not seen to be late in a known one."""
        if not self._found:
            return
        found = np.array(list(self._found.values()))
        found = found[_lateness(found, [known])[:, 0] <= 0.0]
        while len(found) and not self._share(found) and len(self.directions) < MOST_DIRECTIONS:
            # What is seen least begins a direction of its own.
            least = int(_lateness(found, self.directions).max(axis=1).argmin()) if self.directions else 0
            self.directions.append(_unit(found[least, 1:]))

    def _share(self, found: Floats) -> bool:
        """Improve the directions, each for those that it sees best; whether all are seen to be late."""
        for _ in range(SHARING_ROUNDS if self.directions else 0):
            best = _lateness(found, self.directions).argmax(axis=1)
            self.directions = [_best_direction(found[best == number]) for number in np.unique(best)]
            if _lateness(found, self.directions).max(axis=1).min() > 0.0:
                return True
        return False


def _lateness(found: Floats, directions: Sequence[Floats]) -> Floats:
    """[assignments, directions]"""
    late: Floats = found[:, :1] + found[:, 1:] @ np.array(directions).T
    return late


def _best_direction(found: Floats) -> Floats:
    """In which the least late of some assignments, [assignments, 1 + sources], is as late as can be."""
    late, errors = found[:, 0], found[:, 1:]
    directions = [_unit(errors[0])]
    # The variables are the share of each assignment in a mixture, and how late the mixture is.
    cost = np.append(np.zeros(len(found)), 1.0)
    whole = np.append(np.ones(len(found)), 0.0)[None, :]
    bounds = [(0.0, None)] * len(found) + [(None, None)]
    while True:
        limits = np.array([np.append(late + errors @ direction, -1.0) for direction in directions])
        result = linprog(cost, A_ub=limits, b_ub=np.zeros(len(limits)), A_eq=whole, b_eq=1.0, bounds=bounds)
        mean = result.x[:-1] @ errors
        thought = float(result.fun)
        if result.x[:-1] @ late + np.linalg.norm(mean) - thought < CLOSE_FRAC or len(directions) == MOST_LIMITS:
            weights = -result.ineqlin.marginals
            best: Floats = weights @ np.array(directions) / max(float(weights.sum()), LEAST_UNIT)
            return best
        directions.append(_unit(mean))


def _unit(error: Floats) -> Floats:
    return error / max(float(np.linalg.norm(error)), LEAST_UNIT)
