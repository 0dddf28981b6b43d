"""The problem that the solvers solve: a multiple-choice knapsack whose choices may need each other.

Each layer takes one option. A *link* ties the options of one layer to those of another: what a layer costs depends on
the widths that it shares with its neighbours, so each of its options is for one width (its state), and the group that
decides the width is a layer of the knapsack itself, whose options are the widths. The time of a layer is a product of
its two widths; with an option for each pair of them it is modelled as it is, nothing is linearised.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..kernels.errors import InputError

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
SolveStatus = Literal["optimal", "time_limit", "infeasible"]

TOLERANCE_FRAC = 1e-6
"""Times this close to the budget are within it: the accuracy of the linear solver."""
GAP_FRAC = 1e-3
"""Proved distance from the best assignment, of its loss; expected losses are known far less well than that."""
LEAST_UNIT = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Link:
    """The option that `layer` takes asks for a state; the option that `node` takes must answer with the same one.

    Attributes
    ----------
    asks, answers : array of int
        State of each option of the layer and of the node, in the order of their options.
    """

    layer: int
    node: int
    asks: Indices
    answers: Indices


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knapsack:
    """Options of all layers as arrays, [options]; each layer has at least one.

    Attributes
    ----------
    layer : array of int
        Which layer an option belongs to, 0 .. layers - 1, ascending.
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
    links : tuple of Link
        What options of some layers need of the options of others.
    """

    layer: Indices
    source: Indices
    median_s: Floats
    spread_s: Floats
    loss: Floats
    fixed_s: float
    base_spread_s: Floats
    links: tuple[Link, ...] = ()

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
        if (np.diff(self.layer) < 0).any():
            raise InputError("the options of a knapsack must be in the order of their layers")
        for link in self.links:
            if len(link.asks) != len(self.options_of(link.layer)) or len(link.answers) != len(
                self.options_of(link.node)
            ):
                raise InputError(f"link of layer {link.layer} to {link.node}: one state an option of each is needed")

    @property
    def layers(self) -> int:
        return int(self.layer.max()) + 1

    def options_of(self, layer: int) -> Indices:
        """Option numbers of one layer, ascending."""
        first, last = np.searchsorted(self.layer, [layer, layer + 1])
        return np.arange(first, last)

    def restricted(self, stays: NDArray[np.bool_]) -> Knapsack:
        """The same with some options only, [options]; every layer must keep one."""
        links = tuple(
            replace(
                link,
                asks=link.asks[stays[self.options_of(link.layer)]],
                answers=link.answers[stays[self.options_of(link.node)]],
            )
            for link in self.links
        )
        arrays = {name: getattr(self, name)[stays] for name in ("layer", "source", "median_s", "spread_s", "loss")}
        return replace(self, **arrays, links=links)

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


def found(status: SolveStatus, knapsack: Knapsack, chosen: Indices, *, bound: float, start: float) -> Solution:
    """An assignment as a solution."""
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


def nothing(message: str, start: float) -> Solution:
    """That there is no assignment."""
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
