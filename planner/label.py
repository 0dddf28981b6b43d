"""Close the gap that prices leave: a dynamic programme over loss and times, between the bounds of prices.

The norm of errors is at least their length in one direction, so ``sum m + r . e <= T`` limits a sum, and every
assignment within the budget keeps it. Under a few such limits labels go from choice to choice (`frontier`). Of those at
one frontier only those stay that have less loss or less time than the others, and that prices do not prove to end no
better than what is known. Labels of nearly the same times and, where there are still too many, of nearly the same loss
become one; each carries the least loss and times of all that it stands for, so the least loss at the end is a bound.
What ends with less loss than is known keeps the budget and is the better answer, or it is late: then the limits get
directions in which it is late (`late`).

References
----------
Kellerer, Pferschy & Pisinger, Knapsack Problems, 2004, chapter 11 (dominance, multiple choice); Dumitrescu & Boland,
Improved preprocessing, labeling and scaling algorithms for the weight-constrained shortest path problem, Networks 42,
2003 (labels between Lagrangian bounds).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .eliminate import Elimination
from .frontier import Step, steps_of
from .knapsack import GAP_FRAC, LEAST_UNIT, TOLERANCE_FRAC, Floats, Indices, Knapsack
from .late import Late
from .prices import SLACK, Prices, best_prices, greatest_loss
from .relax import Relaxation, offer_improved, renumbered, rises

FIRST_LABELS, MOST_LABELS, GROWTH = 4_000, 256_000, 4
"""After a choice: so many at first, and more where it is their number that leaves the gap."""
BUCKETS = (1000, 250, 60, 15)
"""Of the second and further times: the finest of which there are not too many labels."""
CLOSED_FRAC = 0.9 * GAP_FRAC
"""Of the best loss: what could improve it by less is dropped."""
COARSE_FRAC = 0.3
"""Of the gap, what joining labels may leave."""
TRACED = 300
"""Complete labels that are looked at, those of least loss."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Labels:
    """Ways to begin.

    Attributes
    ----------
    frontier, loss, parent, option : array
        [labels], of the way that a label can be traced back; `parent` is the label before the choice.
    low, cost, times_s : array
        [labels] and, of times, [labels, limits]: nothing that a label stands for has less so far. Costs are by prices.
    """

    frontier: Indices
    loss: Floats
    low: Floats
    cost: Floats
    times_s: Floats
    parent: Indices
    option: Indices

    @staticmethod
    def start(limits: int) -> _Labels:
        nothing, none = np.zeros(1), np.zeros(1, dtype=np.intp)
        return _Labels(
            frontier=none,
            loss=nothing,
            low=nothing,
            cost=nothing,
            times_s=np.zeros((1, limits)),
            parent=none,
            option=none,
        )

    def joined(self, order: Indices, starts: Indices) -> _Labels:
        """One label of each run of an order, the first, that stands for all of it."""
        first = order[starts]
        return _Labels(
            frontier=self.frontier[first],
            loss=self.loss[first],
            low=np.minimum.reduceat(self.low[order], starts),
            cost=np.minimum.reduceat(self.cost[order], starts),
            times_s=np.minimum.reduceat(self.times_s[order], starts, axis=0),
            parent=self.parent[first],
            option=self.option[first],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Task:
    """The options that a better assignment may take, and what bounds it.

    Attributes
    ----------
    numbers : array of int
        Of the options, in the whole knapsack.
    costs, costs_after : array
        [options] by the prices, and of each step the least cost from each frontier on.
    constant : float
        What makes a sum of costs a bound on the loss.
    """

    rest: Knapsack
    numbers: Indices
    steps: tuple[Step, ...]
    prices: Prices
    bound: float
    rise: Floats
    costs: Floats
    costs_after: Sequence[Floats]
    constant: float
    limit_s: float

    def left(self, relaxed: Relaxation) -> Indices:
        """Numbers of the options that something better than what is known by now may take."""
        stays = self.bound + self.rise <= relaxed.loss * (1.0 + SLACK) + LEAST_UNIT
        assert relaxed.chosen is not None
        return self.numbers[stays | np.isin(self.numbers, relaxed.chosen)]


def label(knapsack: Knapsack, relaxed: Relaxation, *, budget_s: float, deadline: float) -> None:
    """Improve the assignment and the bound until they meet, or until the deadline (of `time.perf_counter`).

    Without doing anything where so many widths meet that there are too many frontiers.
    """
    limit_s = budget_s * (1.0 + TOLERANCE_FRAC)
    late = Late(knapsack, limit_s)
    most, task = FIRST_LABELS, None
    while most <= MOST_LABELS and time.perf_counter() < deadline:
        if task is None:
            task = _task_of(knapsack, relaxed, limit_s, deadline)
            if task is None:
                return
        enough, before = _enough(relaxed), relaxed.loss
        directions = [task.prices.direction, *late.directions]
        bound, complete = _advance(task, directions, most=most, enough=enough, deadline=deadline)
        if bound == np.inf:
            relaxed.infeasible = True
            return
        relaxed.bound = max(relaxed.bound, min(bound, relaxed.loss))
        found = [task.numbers[chosen] for chosen in complete]
        offer_improved(relaxed, knapsack, found, limit_s)
        if relaxed.chosen is not None and relaxed.loss - relaxed.bound <= GAP_FRAC * relaxed.loss:
            return
        losses = [float(knapsack.loss[chosen].sum()) for chosen in found]
        better = [chosen for chosen, loss in zip(found, losses, strict=True) if loss < _enough(relaxed)]
        is_new = late.add(better)
        if not is_new or min(losses) - bound > COARSE_FRAC * (enough - bound):
            most *= GROWTH
        late.separate(task.prices.direction)
        if relaxed.loss < before:
            relaxed.left, task = task.left(relaxed), None


def _task_of(knapsack: Knapsack, relaxed: Relaxation, limit_s: float, deadline: float) -> _Task | None:
    """The best prices of what is left; None where nothing better is, or there are too many frontiers."""
    stays = np.zeros(len(knapsack.layer), dtype=bool)
    stays[relaxed.left] = True
    rest = knapsack.restricted(stays)
    elimination = Elimination(rest)
    priced = best_prices(
        rest,
        elimination,
        limit_s=limit_s,
        seen=renumbered(relaxed.seen, relaxed.left) or [elimination.cheapest(rest.median_s)[1]],
        visit=lambda _: None,
        deadline=deadline,
        enough=np.inf,
    )
    steps = steps_of(rest)
    if steps is None or priced.bound > greatest_loss(rest):
        return None
    costs = priced.prices.costs(rest)
    return _Task(
        rest=rest,
        numbers=relaxed.left,
        steps=steps,
        prices=priced.prices,
        bound=priced.bound,
        rise=rises(rest, elimination, priced.prices),
        costs=costs,
        costs_after=_after(steps, costs),
        constant=priced.prices.bound(rest, 0.0, limit_s),
        limit_s=limit_s,
    )


def _after(steps: Sequence[Step], values: Floats) -> list[Floats]:
    """Of each step, the least sum of values [options, ...] from each frontier on."""
    after = [np.zeros((1, *values.shape[1:]))]
    for step in reversed(steps[1:]):
        after.append(step.least(values, after[-1]))
    return after[::-1]


def _advance(
    task: _Task, directions: Sequence[Floats], *, most: int, enough: float, deadline: float
) -> tuple[float, list[Indices]]:
    """A bound on the loss of all assignments within the limits, and the best of the complete labels.

    The bound is at most `enough`, and 0 where the deadline came first.
    """
    rest, towards = task.rest, np.array(directions)
    times_s = (rest.median_s + towards[:, rest.source] * rest.spread_s).T
    limits_s = task.limit_s - rest.fixed_s + towards @ rest.base_spread_s
    limits_s += SLACK * abs(limits_s)
    labels = _Labels.start(len(towards))
    history: list[_Labels] = []
    times_after_s = _after(task.steps, times_s)
    for step, cost_after, time_after_s in zip(task.steps, task.costs_after, times_after_s, strict=True):
        if time.perf_counter() > deadline:
            return 0.0, []
        parent, way = step.ways(labels.frontier)
        option, to = step.option[way], step.to[way]
        cost = labels.cost[parent] + task.costs[option]
        ends_s = labels.times_s[parent] + times_s[option] + time_after_s[to]
        rows = np.flatnonzero((cost + cost_after[to] + task.constant < enough) & (ends_s <= limits_s).all(axis=1))
        if not len(rows):
            return enough, []
        parent, option, to, ends_s = parent[rows], option[rows], to[rows], ends_s[rows]
        labels = _fewer(
            _Labels(
                frontier=to,
                loss=labels.loss[parent] + rest.loss[option],
                low=labels.low[parent] + rest.loss[option],
                cost=cost[rows],
                times_s=ends_s - time_after_s[to],
                parent=parent,
                option=option,
            ),
            ends_s,
            limits_s,
            most,
        )
        history.append(labels)
    return min(enough, float(labels.low.min())), _traced(rest, history)


def _fewer(labels: _Labels, ends_s: Floats, limits_s: Floats, most: int) -> _Labels:
    """Those with less loss or less time than all others of their group; at most about so many."""
    count = len(labels.loss)
    # Ranks of losses, lower in later groups, so that one running minimum serves all groups.
    rank = np.empty(count, dtype=np.intp)
    rank[np.argsort(labels.loss, kind="stable")] = np.arange(count)
    for buckets in BUCKETS:
        group = _groups(labels.frontier, ends_s, limits_s, buckets)
        order = np.lexsort((labels.loss, labels.times_s[:, 0], group))
        group = group[order]
        ranks = rank[order] - group * count
        starts = np.flatnonzero(ranks == np.minimum.accumulate(ranks))
        if len(starts) <= most or ends_s.shape[1] == 1:
            break
    fewer, group = labels.joined(order, starts), group[starts]
    if len(group) <= most:
        return fewer
    return fewer.joined(np.arange(len(group)), _runs(fewer.loss, group, most))


def _groups(frontier: Indices, ends_s: Floats, limits_s: Floats, buckets: int) -> Indices:
    """[labels]: by frontier and by buckets of all times but the first, numbered from 0."""
    group = frontier
    for limit in range(1, ends_s.shape[1]):
        room_s = limits_s[limit] - ends_s[:, limit]
        bucket = (room_s * (buckets / max(float(room_s.max()), LEAST_UNIT))).astype(np.intp)
        _, group = np.unique(group * (buckets + 1) + bucket, return_inverse=True)
    return group


def _runs(loss: Floats, group: Indices, most: int) -> Indices:
    """Where runs of nearly the same loss in one group begin."""
    width = float(loss.max() - loss.min()) / most
    while True:
        bucket = np.floor(loss / width)
        begins: NDArray[np.bool_] = np.ones(len(loss), dtype=bool)
        begins[1:] = (np.diff(bucket) != 0.0) | (np.diff(group) != 0)
        if begins.sum() <= max(most, 2 * (group[-1] + 1)):
            return np.flatnonzero(begins)
        width *= 2.0


def _traced(rest: Knapsack, history: Sequence[_Labels]) -> list[Indices]:
    """The complete labels of least loss as assignments."""
    rows = np.argsort(history[-1].loss, kind="stable")[:TRACED]
    found = np.empty((len(rows), rest.layers), dtype=np.intp)
    for labels in reversed(history):
        option = labels.option[rows]
        found[np.arange(len(rows)), rest.layer[option]] = option
        rows = labels.parent[rows]
    return list(found)


def _enough(relaxed: Relaxation) -> float:
    """Bound from which on nothing is noticeably better."""
    return relaxed.loss * (1.0 - CLOSED_FRAC) if relaxed.chosen is not None else np.inf
