"""The choices of a knapsack one after another, and what of those taken the ones to come still need to know.

In front of each choice stands a *frontier*: the states that choices taken so far have put to ones not taken yet. All
that is known of the past is which frontier it led to; networks are chains of blocks, so there are few at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .knapsack import Floats, Indices, Knapsack

MOST_WAYS = 2_000_000
"""Ways from the frontiers before a choice to those after it; beyond, labels would take longer than they are worth."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One choice: from which frontier which option leads to which.

    Attributes
    ----------
    first : array of int
        [frontiers before + 1], where the ways of each begin.
    option, to : array of int
        [ways], option number, and the frontier after it.
    count : int
        Frontiers after the choice.
    """

    first: Indices
    option: Indices
    to: Indices
    count: int

    def least(self, values: Floats, after: Floats) -> Floats:
        """[frontiers before, ...]: least sum of values [options, ...] from each on, given that from each after."""
        least: Floats = np.minimum.reduceat(values[self.option] + after[self.to], self.first[:-1])
        return least

    def ways(self, frontiers: Indices) -> tuple[Indices, Indices]:
        """All ways on from some frontiers: (which of these each goes on from, which way it is)."""
        counts = np.diff(self.first)[frontiers]
        parent = np.repeat(np.arange(len(counts)), counts)
        return parent, np.arange(len(parent)) + np.repeat(self.first[frontiers] - np.cumsum(counts) + counts, counts)


def steps_of(knapsack: Knapsack) -> tuple[Step, ...] | None:
    """All choices in an order that keeps frontiers few; None where they get too many.

    Frontiers from which no assignment can be completed are left out.
    """
    links_of: list[list[int]] = [[] for _ in range(knapsack.layers)]
    for number, link in enumerate(knapsack.links):
        links_of[link.layer].append(number)
        links_of[link.node].append(number)
    frontiers = np.zeros((1, 0), dtype=np.intp)
    columns: list[int] = []
    found: list[_Ways] = []
    for choice in _Order(knapsack, links_of):
        own = knapsack.options_of(choice)
        if len(frontiers) * len(own) > MOST_WAYS:
            return None
        fits = np.ones((len(frontiers), len(own)), dtype=bool)
        for number in set(links_of[choice]) & set(columns):
            fits &= frontiers[:, columns.index(number), None] == _states(knapsack, number, choice)
        before, taken = np.nonzero(fits)
        stays = [place for place, number in enumerate(columns) if number not in links_of[choice]]
        opening = [number for number in links_of[choice] if number not in columns]
        opened = [_states(knapsack, number, choice)[taken, None] for number in opening]
        columns = [columns[place] for place in stays] + opening
        after = np.concatenate([frontiers[before][:, stays], *opened], axis=1)
        frontiers, to = _distinct(after)
        found.append(_Ways(before=before, option=own[taken], to=to, count=len(frontiers)))
    return tuple(_completable(found))


def _distinct(rows: Indices) -> tuple[Indices, Indices]:
    """The rows that differ, and which of them each row is."""
    if rows.shape[1] == 0:
        return rows[:1], np.zeros(len(rows), dtype=np.intp)
    different, which = np.unique(rows, axis=0, return_inverse=True)
    return different, which.ravel()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ways:
    before: Indices
    option: Indices
    to: Indices
    count: int


def _completable(found: Sequence[_Ways]) -> list[Step]:
    """Without the ways that lead nowhere; frontiers are numbered anew."""
    steps: list[Step] = []
    alive = np.ones(found[-1].count, dtype=bool)
    for number in range(len(found) - 1, -1, -1):
        ways = found[number]
        kept = alive[ways.to]
        after = (np.cumsum(alive) - 1)[ways.to[kept]]
        count = int(alive.sum())
        alive = np.zeros(found[number - 1].count if number else 1, dtype=bool)
        alive[ways.before[kept]] = True
        before = (np.cumsum(alive) - 1)[ways.before[kept]]
        first = np.searchsorted(before, np.arange(int(alive.sum()) + 1))
        steps.append(Step(first=first, option=ways.option[kept], to=after, count=count))
    return steps[::-1]


def _states(knapsack: Knapsack, number: int, choice: int) -> Indices:
    """[options of the choice]: the states of a link on the side of a choice."""
    link = knapsack.links[number]
    return link.asks if choice == link.layer else link.answers


class _Order:
    """Next the choice that leaves the fewest frontiers, by the states that each choice taken has put to others."""

    def __init__(self, knapsack: Knapsack, links_of: Sequence[Sequence[int]]) -> None:
        self._knapsack, self._links_of = knapsack, links_of
        self._left = set(range(knapsack.layers))
        self._known: dict[tuple[int, frozenset[int]], float] = {}

    def __iter__(self) -> Iterator[int]:
        near: set[int] = set()
        while self._left:
            choice = min(near or self._left, key=lambda each: (self._added(each), each))
            yield choice
            self._left.discard(choice)
            near = (near | self._neighbours(choice)) & self._left

    def _added(self, choice: int) -> float:
        """Of the logarithm of the number of frontiers."""
        taken = self._neighbours(choice) - self._left
        gone = self._left - {choice}
        return self._weight(choice, gone) + sum(
            self._weight(other, gone) - self._weight(other, self._left) for other in taken
        )

    def _weight(self, choice: int, left: set[int]) -> float:
        """Logarithm of the number of states in which a choice is pending."""
        pending = frozenset(number for number in self._links_of[choice] if self._other(number, choice) in left)
        if (choice, pending) not in self._known:
            states = [_states(self._knapsack, number, choice) for number in sorted(pending)]
            count = len(np.unique(np.column_stack(states), axis=0)) if states else 1
            self._known[choice, pending] = float(np.log(count))
        return self._known[choice, pending]

    def _neighbours(self, choice: int) -> set[int]:
        return {self._other(number, choice) for number in self._links_of[choice]}

    def _other(self, number: int, choice: int) -> int:
        link = self._knapsack.links[number]
        return link.node if choice == link.layer else link.layer
