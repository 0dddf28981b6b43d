"""Choose one way to run each layer: least loss within a time budget that the whole network meets.

A multiple-choice knapsack. The time of the whole is uncertain, and its errors do not simply add: a kernel whose
efficiency the model has wrong is wrong in every layer alike (systematic: these errors add up), while the errors of
different kernels have nothing to do with each other (independent: these add in quadrature). So with m the medians, and
s_k the sum of (upper quantile - median) over the layers that run kernel k, the whole is taken to need at most

    sum m + sqrt(sum_k (s_k - b_k) ** 2)

b_k is what the yardstick has in common with the plan: for a target speedup X, the error of the dense network divided by
X, because an error in a layer that stays dense makes the dense network slower as well. For a latency it is zero.

That all of a kernel's error is shared is more than held-out layers show: in six validations on a Zen 5 (843 to 2039
problems, 38 or 39 kernels) kernels explained 3 to 10 % of the squared errors, and the machine's state on the day,
which dense layers have as well, up to 26 % more. A rule with 30 % shared by the kernel and the rest by layers of one
shape was tried: it changed the loss of plans for 1.5x by -2 to +11 % (ResNet-18, 50 and 56, with shared widths and
without), as errors of shapes do not cancel against those of the dense network as errors of kernels do, and ResNet-18,
solved in 0.2 s under this rule, was left with a gap of 0.5 % after 15 s. What a plan has too much of, measuring tells
(`runtime`).

The norm of e = s - b is at least r . e for every direction r no longer than 1, with equality where r points along e.
Each direction gives a linear limit, ``sum m + r . e <= T``. Prices on time and on these errors give a bound and often
the answer (`relax`). The rest goes to a dynamic programme (`label`), and what that leaves to HiGHS, both under the
limits of some directions: where an answer of HiGHS breaks the true limit, that of its own direction is added and it is
solved again. No rounding of times into buckets can make a plan miss its target.

References
----------
Duran & Grossmann, An outer-approximation algorithm for a class of mixed-integer nonlinear programs, Mathematical
Programming 36, 1986. Martello & Toth, Knapsack Problems, 1990, section 3.5 (multiple-choice knapsack); Pisinger, A
minimal algorithm for the multiple-choice knapsack problem, EJOR 83, 1995 (growing cores).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from .eliminate import Elimination
from .knapsack import (
    GAP_FRAC,
    LEAST_UNIT,
    TOLERANCE_FRAC,
    Floats,
    Indices,
    Knapsack,
    Solution,
    SolveStatus,
    found,
    nothing,
)
from .label import label
from .prices import SLACK
from .relax import TIME_GAP_FRAC, Relaxation, direction_of, fastest_bound, relax, rises
from .silence import silent_stdout

LABELS_SHARE, CORES_SHARE = 0.15, 0.4
"""Of the time limit, until when labels and then the linear solver try, before labels get what is left."""
MAX_ROUNDS = 50
CORE_FRAC = 0.1
"""Of the gap that the relaxation leaves: options that raise the bound by more are first left out."""
CORE_GROWTH = 4.0


def solve_knapsack(knapsack: Knapsack, *, budget_s: float, time_limit_s: float = 30.0) -> Solution:
    """The assignment of least loss that needs at most `budget_s`.

    Prices come first: often their gap is small enough, and else they tell which options no better assignment can take.
    Then labels (`label`), and the linear solver for a while where they do not settle it.
    Where the time limit comes first: the best assignment found that keeps the budget, status "time_limit".

    Raises
    ------
    UnsupportedError
        If more widths meet in one place than can be weighed against each other.
    """
    start = time.perf_counter()
    relaxed = relax(knapsack, budget_s=budget_s, time_limit_s=time_limit_s)
    if relaxed.infeasible:
        return nothing(f"no assignment needs at most {budget_s:.3g} s", start)
    # Labels settle most within a second, the linear solver some others, and what is too wide for labels.
    for settle, share in ((label, LABELS_SHARE), (_solve_cores, CORES_SHARE), (label, 1.0), (_solve_cores, 1.0)):
        if not relaxed.infeasible and (relaxed.chosen is None or not _is_proved(relaxed.loss, relaxed.bound)):
            settle(knapsack, relaxed, budget_s=budget_s, deadline=start + share * time_limit_s)
    if relaxed.infeasible:
        return nothing(f"no assignment needs at most {budget_s:.3g} s", start)
    if relaxed.chosen is None:
        return nothing("no assignment within the budget was found before the time limit", start)
    status: SolveStatus = "optimal" if _is_proved(relaxed.loss, relaxed.bound) else "time_limit"
    return found(status, knapsack, relaxed.chosen, bound=relaxed.bound, start=start)


def _solve_cores(knapsack: Knapsack, relaxed: Relaxation, *, budget_s: float, deadline: float) -> None:
    """Solve with the options that raise the bound least, and more and more of them until the gap is closed.

    An assignment with an option that was left out has at least the bound plus what that option raises it by.
    """
    base = relaxed.bound
    prices = relaxed.prices
    rise = np.zeros(len(knapsack.layer)) if prices is None else rises(knapsack, Elimination(knapsack), prices)
    known = relaxed.chosen is not None and prices is not None
    most = max(CORE_FRAC * (relaxed.loss - base), GAP_FRAC * relaxed.loss) if known else np.inf
    while time.perf_counter() < deadline:
        stays = rise <= most
        if relaxed.chosen is not None:
            stays[relaxed.chosen] = True
        core = _solve_core(knapsack, np.flatnonzero(stays), relaxed, budget_s=budget_s, deadline=deadline)
        whole = bool(stays.all())
        outside = np.inf if whole else base + most
        relaxed.bound = max(relaxed.bound, min(core, outside, relaxed.loss))
        if relaxed.chosen is None and core == np.inf and whole:
            relaxed.infeasible = True
            return
        if outside >= relaxed.loss or (relaxed.chosen is not None and _is_proved(relaxed.loss, relaxed.bound)):
            return
        most *= CORE_GROWTH


def _solve_core(
    knapsack: Knapsack, numbers: Indices, relaxed: Relaxation, *, budget_s: float, deadline: float
) -> float:
    """Solve with some options only; the bound for these, infinite where none of them keep the budget."""
    stays = np.zeros(len(knapsack.layer), dtype=bool)
    stays[numbers] = True
    core = knapsack.restricted(stays)
    directions = [] if relaxed.prices is None else [relaxed.prices.direction]
    if relaxed.chosen is not None:
        directions.append(direction_of(knapsack, relaxed.chosen))
    if not directions:
        directions.append(np.zeros(len(knapsack.base_spread_s)))
    broken: list[Indices] = []
    bound = relaxed.bound
    while len(broken) < MAX_ROUNDS and (left_s := deadline - time.perf_counter()) > 0.0:
        answer = _solve_linear(core, directions, broken, budget_s=budget_s, time_limit_s=left_s)
        if answer.infeasible:
            return np.inf
        bound = max(bound, answer.bound)
        if answer.chosen is None:
            break
        chosen = numbers[answer.chosen]
        if knapsack.upper_s(chosen) <= budget_s * (1.0 + TOLERANCE_FRAC):
            _keep_better(relaxed, knapsack, chosen)
            break
        if relaxed.chosen is not None and _is_proved(relaxed.loss, bound):
            break
        directions.append(direction_of(core, answer.chosen))
        broken.append(answer.chosen)
    return bound


def _is_proved(loss: float, bound: float) -> bool:
    return loss - bound <= GAP_FRAC * loss


def _keep_better(relaxed: Relaxation, knapsack: Knapsack, chosen: Indices) -> None:
    loss = float(knapsack.loss[chosen].sum())
    if loss < relaxed.loss:
        relaxed.loss, relaxed.chosen = loss, chosen


def fastest(knapsack: Knapsack, *, time_limit_s: float = 10.0) -> Solution:
    """The assignment whose whole needs the least time at most; its objective is that time in seconds."""
    start = time.perf_counter()
    elimination = Elimination(knapsack)
    bound, best = fastest_bound(knapsack, elimination)
    directions = [direction_of(knapsack, best)]
    numbers = np.flatnonzero(_may_be_faster(knapsack, elimination, best))
    stays = np.zeros(len(knapsack.layer), dtype=bool)
    stays[numbers] = True
    rest = knapsack.restricted(stays)
    while len(directions) < MAX_ROUNDS and (left_s := time_limit_s - (time.perf_counter() - start)) > 0.0:
        if knapsack.upper_s(best) <= bound * (1.0 + TIME_GAP_FRAC):
            break
        answer = _solve_linear(rest, directions, [], budget_s=None, time_limit_s=left_s)
        if answer.chosen is None:
            break
        bound = max(bound, min(answer.bound, knapsack.upper_s(best)))
        best = min(best, numbers[answer.chosen], key=knapsack.upper_s)
        directions.append(direction_of(rest, answer.chosen))
    upper_s = knapsack.upper_s(best)
    return Solution(
        status="optimal" if upper_s <= bound * (1.0 + TIME_GAP_FRAC) else "time_limit",
        message="least time of the whole network",
        chosen=tuple(int(option) for option in best),
        objective=upper_s,
        bound=min(bound, upper_s),
        gap_frac=max(upper_s - bound, 0.0) / upper_s if upper_s > 0.0 else 0.0,
        upper_s=upper_s,
        duration_s=time.perf_counter() - start,
    )


def _may_be_faster(knapsack: Knapsack, elimination: Elimination, best: Indices) -> np.ndarray:
    """[options]: those that an assignment faster than the one known may take."""
    direction = direction_of(knapsack, best)
    time_s = knapsack.median_s + direction[knapsack.source] * knapsack.spread_s
    constant_s = knapsack.fixed_s - float(direction @ knapsack.base_spread_s)
    stays: np.ndarray = elimination.min_marginals(time_s) + constant_s <= knapsack.upper_s(best) * (1.0 + SLACK)
    stays[best] = True
    return stays


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LinearAnswer:
    chosen: Indices | None
    bound: float
    infeasible: bool


def _solve_linear(
    knapsack: Knapsack,
    directions: Sequence[Floats],
    broken: Sequence[Indices],
    *,
    budget_s: float | None,
    time_limit_s: float,
) -> _LinearAnswer:
    """The knapsack under linear limits, without assignments known to break the true one: least loss, or least time.

    Each broken assignment is also excluded as such: within the accuracy of the linear solver its own limit might admit
    it. The variables are one an option, and behind them the time of the whole.
    """
    options = len(knapsack.layer)
    # HiGHS works with absolute tolerances, so times and losses are brought to the order of 1.
    second = max(budget_s if budget_s is not None else float(knapsack.median_s.max()), LEAST_UNIT)
    nat = max(float(knapsack.loss.max()), LEAST_UNIT)
    choose_one = sparse.csr_array((np.ones(options), (knapsack.layer, np.arange(options))))
    constraints = [LinearConstraint(_with_time(choose_one, 0.0), 1.0, 1.0)]
    constraints += [LinearConstraint(_with_time(matrix, 0.0), 0.0, 0.0) for matrix in _links(knapsack)]
    for direction in directions:
        time_s = knapsack.median_s + direction[knapsack.source] * knapsack.spread_s
        constant_s = float(direction @ knapsack.base_spread_s) - knapsack.fixed_s
        constraints.append(LinearConstraint(_with_time(time_s[None, :] / second, -1.0), -np.inf, constant_s / second))
    for chosen in broken:
        excluded = np.zeros((1, options))
        excluded[0, chosen] = 1.0
        constraints.append(LinearConstraint(_with_time(excluded, 0.0), -np.inf, knapsack.layers - 1.0))
    if budget_s is None:
        cost, unit, highest = np.append(np.zeros(options), 1.0), second, np.inf
    else:
        cost, unit, highest = np.append(knapsack.loss / nat, 0.0), nat, 1.0 + TOLERANCE_FRAC
    with silent_stdout():
        result = milp(
            cost,
            integrality=np.append(np.ones(options, dtype=np.int8), np.int8(0)),
            bounds=Bounds(np.zeros(options + 1), np.append(np.ones(options), highest)),
            constraints=constraints,
            options={
                "time_limit": max(time_limit_s, 0.01),
                "mip_rel_gap": 0.9 * GAP_FRAC if budget_s is not None else TIME_GAP_FRAC / 4.0,
            },
        )
    bound = result.mip_dual_bound if result.mip_dual_bound is not None else -np.inf
    return _LinearAnswer(
        chosen=None if result.x is None else _largest_of_each(knapsack, result.x[:options]),
        bound=max(float(bound) * unit, 0.0) if np.isfinite(bound) else 0.0,
        infeasible=result.status == 2,
    )


def _with_time(matrix: sparse.csr_array | Floats, time: float) -> sparse.csr_array:
    """The matrix with a column for the time of the whole behind it."""
    return sparse.hstack(
        [sparse.csr_array(matrix), sparse.csr_array(np.full((matrix.shape[0], 1), time))], format="csr"
    )


def _largest_of_each(knapsack: Knapsack, values: Floats) -> Indices:
    """The option with the largest value of each layer: solvers return ones that are not quite 1."""
    order = np.lexsort((-values, knapsack.layer))
    return order[np.searchsorted(knapsack.layer[order], np.arange(knapsack.layers))]


def _links(knapsack: Knapsack) -> Iterator[sparse.csr_array]:
    """One row a state of each link: options that ask for it minus options that answer with it."""
    options = len(knapsack.layer)
    for link in knapsack.links:
        asking, answering = knapsack.options_of(link.layer), knapsack.options_of(link.node)
        states = int(max(link.asks.max(), link.answers.max())) + 1
        values = np.concatenate([np.ones(len(asking)), -np.ones(len(answering))])
        rows = np.concatenate([link.asks, link.answers])
        yield sparse.csr_array((values, (rows, np.concatenate([asking, answering]))), shape=(states, options))
