"""Choose one way to run each layer: least loss within a time budget that the whole network meets.

A multiple-choice knapsack. The time of the whole is uncertain, and its errors do not simply add: a kernel whose
efficiency the model has wrong is wrong in every layer alike (systematic: these errors add up), while the errors of
different kernels have nothing to do with each other (independent: these add in quadrature). So with m the medians, and
s_k the sum of (upper quantile - median) over the layers that run kernel k, the whole is taken to need at most

    sum m + sqrt(sum_k (s_k - b_k) ** 2)

b_k is what the yardstick has in common with the plan: for a target speedup X, the error of the dense network divided by
X, because an error in a layer that stays dense makes the dense network slower as well. For a latency it is zero.

The root t is the norm of an affine function, a convex cone: with e_k = s_k - b_k it holds that e_k ** 2 / t <= u_k and
sum u_k <= t. Each of these parabolas lies above its tangents u_k >= 2 r e_k - r ** 2 t, which are linear. The knapsack
is solved by HiGHS with some tangents; where its answer breaks the true limit, the tangents at that answer are added
and it is solved again. The first answer that keeps the true limit is optimal, and no rounding of times into buckets
can make a plan miss its target.

References
----------
Vielma, Dunning, Huchette & Lubin, Extended formulations in mixed integer conic quadratic programming, Mathematical
Programming Computation 9, 2017. Martello & Toth, Knapsack Problems, 1990, section 3.5 (multiple-choice knapsack).
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
TIME_GAP_FRAC = 1e-3
"""Of the fastest assignment."""
FIRST_SLOPES = np.linspace(-1.0, 1.0, 13)
MAX_ROUNDS = 50
FALLBACK_S = 5.0
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
        if set(np.unique(self.layer)) != set(range(self.layers)):
            raise InputError("every layer of a knapsack needs at least one option")

    @property
    def layers(self) -> int:
        return int(self.layer.max()) + 1

    def shared_error_s(self, chosen: Indices) -> Floats:
        """[sources]: e in the module's docstring, of an assignment (option numbers)."""
        return np.bincount(self.source[chosen], self.spread_s[chosen], len(self.base_spread_s)) - self.base_spread_s

    def upper_s(self, chosen: Indices) -> float:
        """Time that the whole is taken to need at most."""
        return self.fixed_s + float(self.median_s[chosen].sum() + np.linalg.norm(self.shared_error_s(chosen)))


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
    slopes = _first_slopes(knapsack)
    broken: list[Indices] = []
    while len(broken) < MAX_ROUNDS and (left_s := time_limit_s - (time.perf_counter() - start)) > 0.0:
        answer = _solve_linear(knapsack, slopes, broken, budget_s=budget_s, time_limit_s=left_s)
        if answer.infeasible:
            return _nothing(f"no assignment needs at most {budget_s:.3g} s", start)
        bound = max(bound, answer.bound)
        if answer.chosen is None:
            break
        if knapsack.upper_s(answer.chosen) <= budget_s * (1.0 + TOLERANCE_FRAC):
            status: SolveStatus = "time_limit" if answer.timed_out else "optimal"
            return _found(status, knapsack, answer.chosen, bound=bound, start=start)
        slopes.append(_slopes_at(knapsack, answer.chosen))
        broken.append(answer.chosen)
    # Whatever meets the budget is better than nothing, and the fastest assignment is the likeliest to.
    quick = np.array(fastest(knapsack, time_limit_s=FALLBACK_S).chosen)
    if knapsack.upper_s(quick) <= budget_s:
        return _found("time_limit", knapsack, quick, bound=bound, start=start)
    return _nothing("no assignment within the budget was found before the time limit", start)


def fastest(knapsack: Knapsack, *, time_limit_s: float = 10.0) -> Solution:
    """The assignment whose whole needs the least time at most; its objective is that time in seconds."""
    start = time.perf_counter()
    best = _greedy(knapsack)
    bound = 0.0
    slopes = [*_first_slopes(knapsack), _slopes_at(knapsack, best)]
    status: SolveStatus = "time_limit"
    while len(slopes) < MAX_ROUNDS and (left_s := time_limit_s - (time.perf_counter() - start)) > 0.0:
        answer = _solve_linear(knapsack, slopes, [], budget_s=None, time_limit_s=left_s)
        if answer.chosen is None:
            break
        bound = max(bound, answer.bound)
        best = min(best, answer.chosen, key=knapsack.upper_s)
        if knapsack.upper_s(best) <= bound * (1.0 + TIME_GAP_FRAC):
            status = "optimal"
            break
        slopes.append(_slopes_at(knapsack, answer.chosen))
    upper_s = knapsack.upper_s(best)
    return Solution(
        status=status,
        message="least time of the whole network",
        chosen=tuple(int(option) for option in best),
        objective=upper_s,
        bound=min(bound, upper_s),
        gap_frac=max(upper_s - bound, 0.0) / upper_s if upper_s > 0.0 else 0.0,
        upper_s=upper_s,
        duration_s=time.perf_counter() - start,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LinearAnswer:
    chosen: Indices | None
    bound: float
    infeasible: bool
    timed_out: bool


def _solve_linear(
    knapsack: Knapsack,
    slopes: Sequence[Floats],
    broken: Sequence[Indices],
    *,
    budget_s: float | None,
    time_limit_s: float,
) -> _LinearAnswer:
    """The knapsack under tangents, without assignments known to break the limit: least loss, or least time.

    Each broken assignment is also excluded as such: within the accuracy of the linear solver its tangents might admit
    it. The variables are, in this order: one a option, e and u of each source, t.
    """
    options, sources = len(knapsack.layer), len(knapsack.base_spread_s)
    # HiGHS works with absolute tolerances, so times and losses are brought to the order of 1.
    second = max(budget_s if budget_s is not None else knapsack.upper_s(_greedy(knapsack)), LEAST_UNIT)
    nat = max(float(knapsack.loss.max()), LEAST_UNIT)
    pick, each = np.arange(options), sparse.csr_array(sparse.eye_array(sources))
    choose_one = sparse.csr_array((np.ones(options), (knapsack.layer, pick)), shape=(knapsack.layers, options))
    errors = sparse.csr_array((knapsack.spread_s / second, (knapsack.source, pick)), shape=(sources, options))
    whole = _row(knapsack.median_s / second, np.zeros(2 * sources), np.ones(1))
    base = knapsack.base_spread_s / second
    constraints = [
        LinearConstraint(_columns(choose_one, 2 * sources + 1), 1.0, 1.0),
        LinearConstraint(_columns(sparse.hstack([errors, -each]), sources + 1), base, base),
        LinearConstraint(_row(np.zeros(options + sources), np.ones(sources), -np.ones(1)), -np.inf, 0.0),
    ]
    for slope in slopes:
        tangent = sparse.hstack(
            [
                sparse.csr_array((sources, options)),
                sparse.diags_array(2.0 * slope),
                -each,
                sparse.csr_array(-(slope**2)[:, None]),
            ]
        )
        constraints.append(LinearConstraint(tangent, -np.inf, 0.0))
    for chosen in broken:
        excluded = np.zeros(options + 2 * sources + 1)
        excluded[chosen] = 1.0
        constraints.append(LinearConstraint(excluded, -np.inf, knapsack.layers - 1.0))
    if budget_s is None:
        cost, unit = whole.toarray()[0], second
    else:
        limit = (budget_s - knapsack.fixed_s) / second + TOLERANCE_FRAC
        constraints.append(LinearConstraint(whole, -np.inf, limit))
        cost, unit = np.append(knapsack.loss / nat, np.zeros(2 * sources + 1)), nat
    integral = np.append(np.ones(options, dtype=np.int8), np.zeros(2 * sources + 1, dtype=np.int8))
    lowest = np.concatenate([np.zeros(options), np.full(sources, -np.inf), np.zeros(sources + 1)])
    result = milp(
        cost,
        integrality=integral,
        bounds=Bounds(lowest, np.where(integral == 1.0, 1.0, np.inf)),
        constraints=constraints,
        options={
            "time_limit": max(time_limit_s, 0.01),
            "mip_rel_gap": GAP_FRAC if budget_s is not None else TIME_GAP_FRAC / 4.0,
        },
    )
    bound = result.mip_dual_bound if result.mip_dual_bound is not None else -np.inf
    fixed_s = 0.0 if budget_s is not None else knapsack.fixed_s
    return _LinearAnswer(
        chosen=None if result.x is None else _largest_of_each(knapsack, result.x[:options]),
        bound=max(float(bound) * unit, 0.0) + fixed_s if np.isfinite(bound) else 0.0,
        infeasible=result.status == 2,
        timed_out=result.status == 1,
    )


def _row(*parts: Floats) -> sparse.csr_array:
    return sparse.csr_array(np.concatenate(parts)[None, :])


def _columns(matrix: sparse.csr_array, more: int) -> sparse.csr_array:
    """The matrix with empty columns behind it."""
    return sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], more))], format="csr")


def _largest_of_each(knapsack: Knapsack, values: Floats) -> Indices:
    """The option with the largest value of each layer: solvers return ones that are not quite 1."""
    order = np.lexsort((-values, knapsack.layer))
    return order[np.searchsorted(knapsack.layer[order], np.arange(knapsack.layers))]


def _greedy(knapsack: Knapsack) -> Indices:
    """The option with the least upper quantile of each layer."""
    return _largest_of_each(knapsack, -(knapsack.median_s + knapsack.spread_s))


def _first_slopes(knapsack: Knapsack) -> list[Floats]:
    """r in the module's docstring, [sources] each: e / t lies between -1 and 1."""
    return [np.full(len(knapsack.base_spread_s), slope) for slope in FIRST_SLOPES]


def _slopes_at(knapsack: Knapsack, chosen: Indices) -> Floats:
    """The r whose tangents touch the parabolas at an assignment, [sources]."""
    error = knapsack.shared_error_s(chosen)
    return error / max(float(np.linalg.norm(error)), LEAST_UNIT)


def _found(status: SolveStatus, knapsack: Knapsack, chosen: Indices, *, bound: float, start: float) -> Solution:
    loss = float(knapsack.loss[chosen].sum())
    return Solution(
        status=status,
        message={
            "optimal": "least loss within the time budget",
            "time_limit": "best assignment found before the solver's time limit",
        }[status],
        chosen=tuple(int(option) for option in chosen),
        objective=loss,
        bound=min(bound, loss),
        gap_frac=max(loss - bound, 0.0) / loss if loss > 0.0 else 0.0,
        upper_s=knapsack.upper_s(chosen),
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
