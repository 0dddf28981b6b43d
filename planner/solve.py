"""Choose one way to run each layer: least loss within a time budget that the whole network meets.

A multiple-choice knapsack. The time of the whole is uncertain, and its errors do not simply add: a kernel whose
efficiency the model has wrong is wrong in every layer alike (systematic: these errors add up), while the errors of
different kernels have nothing to do with each other (independent: these add in quadrature). So with m the medians, and
s_k the sum of (upper quantile - median) over the layers that run kernel k, the whole is taken to need at most

    sum m + sqrt(sum_k (s_k - b_k) ** 2)

b_k is what the yardstick has in common with the plan: for a target speedup X, the error of the dense network divided by
X, because an error in a layer that stays dense makes the dense network slower as well. For a latency it is zero.

The root is the norm of an affine function, so it is convex and lies above each of its tangents, which are linear. The
knapsack is solved with the tangents known so far; if its answer breaks the true limit, the tangent at that answer is
added and it is solved again (outer approximation). The first answer that keeps the true limit is optimal, and no
rounding of times into buckets can make a plan miss its target.

References
----------
Duran & Grossmann, An outer-approximation algorithm for a class of mixed-integer nonlinear programs, Mathematical
Programming 36, 1986. Martello & Toth, Knapsack Problems, 1990, section 3.5 (multiple-choice knapsack).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from ..kernels.errors import InputError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
SolveStatus = Literal["optimal", "time_limit", "infeasible"]

TOLERANCE_FRAC = 1e-6
"""Times this close to the budget are within it: the accuracy of the linear solver."""
GAP_FRAC = 1e-4
MAX_TANGENTS = 100
LEAST_UNIT = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knapsack:
    """Options of all layers as arrays, [options]; each layer has at least one.

    Attributes
    ----------
    layer : array of int
        Which layer an option belongs to, 0 .. layers - 1.
    source : array of int
        Which error an option shares (its kernel), 0 .. sources - 1.
    median_s, spread_s : array
        Time of all calls, and how far its upper quantile lies above, seconds.
    loss : array
        Not negative.
    fixed_s : float
        Median time that no choice changes, seconds.
    base_spread_s : array
        [sources], what is taken off each shared error (b in the module's docstring), seconds; time that no choice
        changes has a source of its own here, with its sign turned.
    """

    layer: Indices
    source: Indices
    median_s: Floats
    spread_s: Floats
    loss: Floats
    fixed_s: float
    base_spread_s: Floats

    def __post_init__(self) -> None:
        sizes = {len(values) for values in (self.layer, self.source, self.median_s, self.spread_s, self.loss)}
        if len(sizes) != 1 or sizes == {0}:
            raise InputError(f"knapsack arrays must have one length of at least 1, got {sorted(sizes)}")
        numbers = np.concatenate([self.median_s, self.spread_s, self.loss, self.base_spread_s, [self.fixed_s]])
        if not np.isfinite(numbers).all():
            raise InputError("knapsack times and losses must be finite; check the performance model and the weights")
        if min(self.median_s.min(), self.spread_s.min(), self.loss.min(), self.fixed_s) < 0.0:
            raise InputError("knapsack times and losses must not be negative")
        if set(np.unique(self.layer)) != set(range(int(self.layer.max()) + 1)):
            raise InputError("every layer of a knapsack needs at least one option")

    def source_spread_s(self, chosen: Indices) -> Floats:
        """[sources]: shared errors of an assignment (option numbers), less the base."""
        return np.bincount(self.source[chosen], self.spread_s[chosen], len(self.base_spread_s)) - self.base_spread_s

    def upper_s(self, chosen: Indices) -> float:
        """Time that the whole is taken to need at most."""
        return self.fixed_s + float(self.median_s[chosen].sum() + np.linalg.norm(self.source_spread_s(chosen)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The outcome: an assignment, or that there is none.

    Attributes
    ----------
    chosen : tuple of int or None
        Option number of each layer.
    objective : float or None
        What was minimised: loss, or seconds.
    bound : float or None
        No assignment within the budget is better than this.
    upper_s : float or None
        Time that the whole is taken to need at most, seconds.
    """

    status: SolveStatus
    message: str
    chosen: tuple[int, ...] | None
    objective: float | None
    bound: float | None
    gap_frac: float | None
    upper_s: float | None
    duration_s: float


def solve_knapsack(knapsack: Knapsack, *, budget_s: float, time_limit_s: float = 30.0) -> Solution:
    """The assignment of least loss that needs at most `budget_s`.

    Where the time limit comes first: the best assignment found that keeps the budget, status "time_limit".
    """
    start = time.perf_counter()
    bound = 0.0
    tangents = [_flat(knapsack)]
    broken: list[Indices] = []
    while len(tangents) <= MAX_TANGENTS and (left_s := time_limit_s - (time.perf_counter() - start)) > 0.0:
        answer = _solve_linear(knapsack, tangents, broken, budget_s=budget_s, time_limit_s=left_s)
        if answer.infeasible:
            return _nothing(f"no assignment needs at most {budget_s:.3g} s", start)
        bound = max(bound, answer.bound)
        if answer.chosen is None:
            break
        if knapsack.upper_s(answer.chosen) <= budget_s * (1.0 + TOLERANCE_FRAC):
            if answer.timed_out:
                return _found("time_limit", "best found before the time limit", knapsack, answer.chosen, bound, start)
            return _found("optimal", "least loss within the time budget", knapsack, answer.chosen, bound, start)
        tangents.append(_tangent(knapsack, answer.chosen))
        broken.append(answer.chosen)
    # Whatever meets the budget is better than nothing, and the fastest assignment is the likeliest to.
    quick = fastest(knapsack, time_limit_s=1.0)
    if quick.chosen is not None and quick.upper_s is not None and quick.upper_s <= budget_s:
        message = "time limit reached; this is the fastest assignment"
        return _found("time_limit", message, knapsack, np.array(quick.chosen), bound, start)
    return _nothing("no assignment within the budget was found before the time limit", start)


def fastest(knapsack: Knapsack, *, time_limit_s: float = 30.0) -> Solution:
    """The assignment whose whole needs the least time at most; its objective is that time in seconds."""
    start = time.perf_counter()
    sure = knapsack.median_s + knapsack.spread_s
    best: Indices = np.array(
        [int(min(np.flatnonzero(knapsack.layer == layer), key=sure.__getitem__)) for layer in _layers(knapsack)]
    )
    bound = 0.0
    tangents = [_flat(knapsack), _tangent(knapsack, best)]
    while len(tangents) <= MAX_TANGENTS and (left_s := time_limit_s - (time.perf_counter() - start)) > 0.0:
        answer = _solve_linear(knapsack, tangents, [], budget_s=None, time_limit_s=left_s)
        if answer.chosen is None:
            break
        bound = max(bound, answer.bound)
        if knapsack.upper_s(answer.chosen) < knapsack.upper_s(best):
            best = answer.chosen
        if knapsack.upper_s(best) <= bound * (1.0 + GAP_FRAC):
            return _fastest_found("optimal", knapsack, best, bound, start)
        tangents.append(_tangent(knapsack, answer.chosen))
    return _fastest_found("time_limit", knapsack, best, bound, start)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LinearAnswer:
    chosen: Indices | None
    bound: float
    infeasible: bool
    timed_out: bool


def _solve_linear(
    knapsack: Knapsack,
    tangents: Sequence[Floats],
    broken: Sequence[Indices],
    *,
    budget_s: float | None,
    time_limit_s: float,
) -> _LinearAnswer:
    """The knapsack under tangents, without assignments known to break the limit: least loss, or least time.

    Each broken assignment is also excluded as such: within the accuracy of the linear solver its tangent might admit it.
    """
    options, layers = len(knapsack.layer), len(_layers(knapsack))
    slopes = np.array(tangents)
    times = knapsack.median_s + slopes[:, knapsack.source] * knapsack.spread_s
    constants = knapsack.fixed_s - slopes @ knapsack.base_spread_s
    # HiGHS works with absolute tolerances, so times and losses are brought to the order of 1.
    second = max(budget_s if budget_s is not None else float(times.max()), LEAST_UNIT)
    nat = max(float(knapsack.loss.max()), LEAST_UNIT)
    choose_one = sparse.csr_array((np.ones(options), (knapsack.layer, np.arange(options))), shape=(layers, options))
    if budget_s is None:
        # One more variable, the time of the whole, lies above every tangent.
        cost, integrality, most = _with_last(0.0, options), 1.0 - _with_last(0.0, options), np.inf
        choose_one = sparse.hstack([choose_one, sparse.csr_array((layers, 1))], format="csr")
        within = LinearConstraint(np.column_stack([times / second, -np.ones(len(times))]), -np.inf, -constants / second)
    else:
        cost, integrality, most = knapsack.loss / nat, np.ones(options), 1.0
        within = LinearConstraint(times / second, -np.inf, (budget_s - constants) / second + TOLERANCE_FRAC)
    constraints = [LinearConstraint(choose_one, 1.0, 1.0), within]
    if broken:
        excluded = np.zeros((len(broken), len(cost)))
        for row, chosen in zip(excluded, broken, strict=True):
            row[chosen] = 1.0
        constraints.append(LinearConstraint(excluded, -np.inf, layers - 1.0))
    result = milp(
        cost,
        integrality=integrality,
        bounds=Bounds(0.0, np.where(integrality == 1.0, 1.0, most)),
        constraints=constraints,
        options={"time_limit": max(time_limit_s, 0.01), "mip_rel_gap": GAP_FRAC},
    )
    unit = nat if budget_s is not None else second
    bound = result.mip_dual_bound
    return _LinearAnswer(
        chosen=None if result.x is None else _largest_of_each(knapsack, result.x[:options]),
        bound=max(float(bound) * unit, 0.0) if bound is not None and np.isfinite(bound) else 0.0,
        infeasible=result.status == 2,
        timed_out=result.status == 1,
    )


def _with_last(value: float, count: int) -> Floats:
    """`count` times a value, then a 1."""
    return np.append(np.full(count, value), 1.0)


def _largest_of_each(knapsack: Knapsack, values: Floats) -> Indices:
    """The option with the largest value of each layer: solvers return ones that are not quite 1."""
    order = np.lexsort((-values, knapsack.layer))
    return order[np.searchsorted(knapsack.layer[order], _layers(knapsack))]


def _layers(knapsack: Knapsack) -> Indices:
    return np.arange(int(knapsack.layer.max()) + 1)


def _flat(knapsack: Knapsack) -> Floats:
    """The tangent that says no more than that a norm is not negative."""
    return np.zeros(len(knapsack.base_spread_s))


def _tangent(knapsack: Knapsack, chosen: Indices) -> Floats:
    """Slope of the norm at an assignment, [sources]."""
    spread = knapsack.source_spread_s(chosen)
    length = float(np.linalg.norm(spread))
    return spread / length if length > 0.0 else spread


def _found(
    status: SolveStatus, message: str, knapsack: Knapsack, chosen: Indices, bound: float, start: float
) -> Solution:
    loss = float(knapsack.loss[chosen].sum())
    return Solution(
        status=status,
        message=message,
        chosen=tuple(int(option) for option in chosen),
        objective=loss,
        bound=min(bound, loss),
        gap_frac=max(loss - bound, 0.0) / loss if loss > 0.0 else 0.0,
        upper_s=knapsack.upper_s(chosen),
        duration_s=time.perf_counter() - start,
    )


def _fastest_found(status: SolveStatus, knapsack: Knapsack, chosen: Indices, bound: float, start: float) -> Solution:
    upper_s = knapsack.upper_s(chosen)
    return Solution(
        status=status,
        message="least time of the whole network",
        chosen=tuple(int(option) for option in chosen),
        objective=upper_s,
        bound=min(bound, upper_s),
        gap_frac=max(upper_s - bound, 0.0) / upper_s if upper_s > 0.0 else 0.0,
        upper_s=upper_s,
        duration_s=time.perf_counter() - start,
    )


def _nothing(message: str, start: float) -> Solution:
    return Solution(
        status="infeasible",
        message=message,
        chosen=None,
        objective=None,
        bound=None,
        gap_frac=None,
        upper_s=None,
        duration_s=time.perf_counter() - start,
    )
