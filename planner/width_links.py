"""Widths as choices of the solver: one for each group, sums where channels are joined, and links to the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from .candidates import LayerCandidates
from .knapsack import Indices, Link
from .widths import Axis, Widths


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OptionTable:
    """All that is decided, in the order of the solver: layers, then groups, then sums.

    Attributes
    ----------
    layer : array
        [options], number of the choice that an option belongs to.
    links : tuple of Link
        What ties the choices.
    first_of_group : tuple of int
        Number of each group's first option.
    """

    layer: Indices
    links: tuple[Link, ...]
    first_of_group: tuple[int, ...]


def option_table(layers: Sequence[LayerCandidates], widths: Widths) -> OptionTable:
    """Number everything that is decided.

    An axis that reads several groups reads their sum: each sum is a choice of its own over (a sum before, a level), so
    that a layer only asks for the number of channels.
    """
    sizes = [len(layer.options) for layer in layers] + [len(each.levels) for each in widths.groups]
    links: list[Link] = []
    sums = _Sums(widths, first=len(sizes))
    for number, layer in enumerate(layers):
        axes = widths.axes[layer.layer.name]
        sides = [(axes.c_in, 0), (axes.c_out, 1)]
        for axis, side in sides[: 1 if axes.together else 2]:
            if axis.parts:
                node, channels = sums.node_of(axis, len(layers))
                asked = [option.timed.state[side] for option in layer.options]
                links.append(_link(number, node, asked, channels))
    links += sums.links
    links += _branch_links(widths, len(layers))
    sizes += sums.sizes
    ends = np.cumsum([0, *sizes])
    groups = ends[len(layers) : len(layers) + len(widths.groups)]
    return OptionTable(
        layer=np.repeat(np.arange(len(sizes)), sizes),
        links=tuple(links),
        first_of_group=tuple(int(each) for each in groups),
    )


class _Sums:
    """Choices that add up the channels of several groups; each sum is made once."""

    def __init__(self, widths: Widths, *, first: int) -> None:
        self._widths, self._first = widths, first
        self._known: dict[tuple[tuple[int, int], ...], tuple[int, list[int]]] = {}
        self.sizes: list[int] = []
        self.links: list[Link] = []

    def node_of(self, axis: Axis, layers: int) -> tuple[int, list[int]]:
        """Number of the choice that decides an axis, and the channels of each of its options."""
        node, channels = self._sum(axis.parts, layers)
        return node, [axis.rest + each for each in channels]

    def _sum(self, parts: tuple[tuple[int, int], ...], layers: int) -> tuple[int, list[int]]:
        group, each = parts[-1]
        own = layers + group, [each * level for level in self._widths.groups[group].levels]
        if len(parts) == 1:
            return own
        if parts not in self._known:
            before, totals = self._sum(parts[:-1], layers)
            pairs = list(product(sorted(set(totals)), own[1]))
            node = self._first + len(self.sizes)
            self.sizes.append(len(pairs))
            self.links.append(_link(node, before, [total for total, _ in pairs], totals))
            self.links.append(_link(node, own[0], [channels for _, channels in pairs], own[1]))
            self._known[parts] = node, [total + channels for total, channels in pairs]
        return self._known[parts]


def _branch_links(widths: Widths, layers: int) -> list[Link]:
    """The groups inside one branch go together."""
    of_branch: dict[tuple[str, ...], list[int]] = {}
    for number, each in enumerate(widths.groups):
        if each.group.branch:
            of_branch.setdefault(each.group.branch, []).append(number)

    def is_gone(group: int) -> list[int]:
        return [int(level == 0) for level in widths.groups[group].levels]

    return [
        _link(layers + second, layers + first, is_gone(second), is_gone(first))
        for groups in of_branch.values()
        for first, second in pairwise(groups)
    ]


def _link(layer: int, node: int, asked: Sequence[int], answered: Sequence[int]) -> Link:
    number = {value: state for state, value in enumerate(sorted({*asked, *answered}))}
    asks, answers = (np.array([number[value] for value in values], dtype=np.intp) for values in (asked, answered))
    return Link(layer=layer, node=node, asks=asks, answers=answers)
