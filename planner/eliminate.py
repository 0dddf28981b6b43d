"""The cheapest assignment of linked choices, and what each option adds to it: elimination of one choice after another.

Layers that no other needs give a table over the states of the nodes they ask, and nodes are then eliminated in an order
that keeps tables small: networks are chains of blocks, so few widths meet in one place. A second pass back through the
tables gives the least cost of every assignment that takes a given option (its min-marginal).

References
----------
Dechter, Bucket elimination: a unifying framework for reasoning, Artificial Intelligence 113, 1999.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..kernels.errors import UnsupportedError
from .knapsack import Floats, Indices, Knapsack, Link

NEVER = 1e30
"""Cost of what cannot be; added up it stays finite, so no difference becomes NaN."""
LARGEST_TABLE = 3e7
"""Entries; a table of float64 beyond this would not fit beside its neighbours."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Leaf:
    """A layer that no other layer needs: its options by the states that they ask for together.

    Attributes
    ----------
    options, key : array
        Option numbers sorted by key, and the key of each.
    starts, keys : array
        Where each key begins, and which it is.
    state_of : tuple of array
        For each node the contribution of each of its options to the key; the key is their sum.
    index : array
        Key of every combination of options of the nodes.
    """

    layer: int
    nodes: tuple[int, ...]
    options: Indices
    key: Indices
    starts: Indices
    keys: Indices
    state_of: tuple[Indices, ...]
    key_count: int
    index: Indices

    def table(self, cost: Floats) -> tuple[Floats, Floats]:
        """Least cost by key, and over the options of the nodes."""
        by_key = np.full(self.key_count, NEVER)
        by_key[self.keys] = np.minimum.reduceat(cost[self.options], self.starts)
        return by_key, by_key[self.index]


@dataclass(slots=True, kw_only=True, eq=False)
class _Bucket:
    """All that is added up before a node is eliminated; changed while costs pass through."""

    node: int
    clique: tuple[int, ...]
    parent: int | None
    factors: list[int] = field(default_factory=list)
    table: Floats = field(default_factory=lambda: np.empty(0))
    message: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Factor:
    """A table over the options of some nodes: of a leaf, or of a link between two nodes."""

    nodes: tuple[int, ...]
    leaf: _Leaf | None
    fixed: Floats


class Elimination:
    """The structure of a knapsack's links, ready for many costs.

    Raises
    ------
    UnsupportedError
        If so many widths meet in one place that a table would not fit into memory.
    """

    def __init__(self, knapsack: Knapsack) -> None:
        self._count = len(knapsack.layer)
        self._options = [knapsack.options_of(layer) for layer in range(knapsack.layers)]
        self._nodes = sorted({link.node for link in knapsack.links})
        asked: dict[int, list[Link]] = {}
        for link in knapsack.links:
            asked.setdefault(link.layer, []).append(link)
        self._free = [layer for layer in range(knapsack.layers) if layer not in asked and layer not in self._nodes]
        self._factors: list[_Factor] = []
        for layer, links in asked.items():
            if layer in self._nodes:
                self._factors += [_link_factor(link) for link in links]
            else:
                leaf = _leaf(layer, self._options[layer], links)
                self._factors.append(_Factor(nodes=leaf.nodes, leaf=leaf, fixed=np.empty(0)))
        self._buckets = self._order()
        free = [self._options[layer] for layer in self._free]
        self._free_starts = np.cumsum([0, *(len(each) for each in free)])[:-1].astype(np.intp)
        self._free_options = np.concatenate(free) if free else np.empty(0, dtype=np.intp)

    def cheapest(self, cost: Floats) -> tuple[float, Indices]:
        """Least sum of costs [options] of an assignment, and the assignment: one option number a layer."""
        value = self._upwards(cost)
        chosen = np.empty(len(self._options), dtype=np.intp)
        position: dict[int, int] = {}
        for bucket in reversed(self._buckets):
            at = tuple(slice(None) if node == bucket.node else position[node] for node in bucket.clique)
            position[bucket.node] = int(np.argmin(bucket.table[at]))
            chosen[bucket.node] = self._options[bucket.node][position[bucket.node]]
        for factor in self._factors:
            if factor.leaf is not None:
                leaf = factor.leaf
                key = sum(int(states[position[node]]) for node, states in zip(leaf.nodes, leaf.state_of, strict=True))
                own = leaf.options[np.searchsorted(leaf.key, key) : np.searchsorted(leaf.key, key, side="right")]
                chosen[leaf.layer] = own[np.argmin(cost[own])] if len(own) else leaf.options[0]
        for layer in self._free:
            own = self._options[layer]
            chosen[layer] = own[np.argmin(cost[own])]
        return value, chosen

    def min_marginals(self, cost: Floats) -> Floats:
        """[options]: least sum of costs of the assignments that take an option."""
        value = self._upwards(cost)
        marginals = np.full(self._count, NEVER)
        beliefs: dict[int, Floats] = {}
        for bucket in reversed(self._buckets):
            belief = bucket.table
            if bucket.parent is not None:
                parent = self._bucket_of[bucket.parent]
                rest = _minimum(beliefs[parent.node], parent.clique, bucket.clique[1:])
                outside = _aligned(rest, bucket.clique[1:], bucket.clique) - bucket.message[None]
                belief = belief + outside
            beliefs[bucket.node] = belief
            # The belief is of the node's own component; the others add what they need at least.
            own = _minimum(belief, bucket.clique, (bucket.node,))
            marginals[self._options[bucket.node]] = own - belief.min() + value
            for number in bucket.factors:
                leaf = self._factors[number].leaf
                if leaf is not None:
                    by_key, _ = leaf.table(cost)
                    pairs = _minimum(belief, bucket.clique, leaf.nodes)
                    best = np.full(leaf.key_count, NEVER)
                    np.minimum.at(best, leaf.index.ravel(), pairs.ravel())
                    rise = cost[leaf.options] - by_key[leaf.key]
                    marginals[leaf.options] = best[leaf.key] - belief.min() + value + rise
        if len(self._free_options):
            least = np.minimum.reduceat(cost[self._free_options], self._free_starts)
            sizes = np.diff(np.append(self._free_starts, len(self._free_options)))
            marginals[self._free_options] = value + cost[self._free_options] - np.repeat(least, sizes)
        return marginals

    def _upwards(self, cost: Floats) -> float:
        """Fill tables and messages; the least total cost."""
        waiting: dict[int, list[tuple[Floats, tuple[int, ...]]]] = {bucket.node: [] for bucket in self._buckets}
        value = 0.0
        for bucket in self._buckets:
            table = _aligned(cost[self._options[bucket.node]], (bucket.node,), bucket.clique)
            for number in bucket.factors:
                factor = self._factors[number]
                values = factor.fixed if factor.leaf is None else factor.leaf.table(cost)[1]
                table = table + _aligned(values, factor.nodes, bucket.clique)
            for message, nodes in waiting[bucket.node]:
                table = table + _aligned(message, nodes, bucket.clique)
            shape = [len(self._options[node]) for node in bucket.clique]
            bucket.table = np.broadcast_to(table, shape)
            bucket.message = bucket.table.min(axis=0)
            if bucket.parent is None:
                value += float(bucket.message)
            else:
                waiting[bucket.parent].append((bucket.message, bucket.clique[1:]))
        if len(self._free_options):
            value += float(np.minimum.reduceat(cost[self._free_options], self._free_starts).sum())
        return value

    def _order(self) -> list[_Bucket]:
        """Buckets in the order of elimination, the node whose table is smallest first."""
        sizes = {node: len(self._options[node]) for node in self._nodes}
        neighbours: dict[int, set[int]] = {node: set() for node in self._nodes}
        for factor in self._factors:
            for node in factor.nodes:
                neighbours[node] |= set(factor.nodes) - {node}
        left, buckets = set(self._nodes), []
        while left:
            node = min(left, key=lambda each: (_entries(each, neighbours[each], sizes), each))
            if _entries(node, neighbours[node], sizes) > LARGEST_TABLE:
                raise UnsupportedError(
                    f"{len(neighbours[node]) + 1} widths with {sizes[node]} and more levels each meet in one place, "
                    "too many to weigh against each other; leave filter and channel out of --patterns"
                )
            around = tuple(sorted(neighbours[node]))
            buckets.append(_Bucket(node=node, clique=(node, *around), parent=None))
            for other in around:
                neighbours[other] |= set(around) - {other}
                neighbours[other].discard(node)
            left.discard(node)
        turn = {bucket.node: number for number, bucket in enumerate(buckets)}
        for bucket in buckets:
            bucket.parent = min(bucket.clique[1:], key=lambda node: turn[node], default=None)
        self._bucket_of = {bucket.node: bucket for bucket in buckets}
        for number, factor in enumerate(self._factors):
            self._bucket_of[min(factor.nodes, key=lambda node: turn[node])].factors.append(number)
        return buckets


def _leaf(layer: int, options: Indices, links: Sequence[Link]) -> _Leaf:
    key = np.zeros(len(options), dtype=np.intp)
    state_of = []
    factor = 1
    for link in links:
        states = int(max(link.asks.max(), link.answers.max())) + 1
        key += factor * link.asks
        state_of.append((factor * link.answers).astype(np.intp))
        factor *= states
    order = np.argsort(key, kind="stable")
    keys, starts = np.unique(key[order], return_index=True)
    index = np.zeros((1,) * len(links), dtype=np.intp)
    for axis, states_of_node in enumerate(state_of):
        index = index + states_of_node.reshape([-1 if each == axis else 1 for each in range(len(links))])
    return _Leaf(
        layer=layer,
        nodes=tuple(link.node for link in links),
        options=options[order],
        key=key[order],
        starts=starts.astype(np.intp),
        keys=keys,
        state_of=tuple(state_of),
        key_count=factor,
        index=index,
    )


def _link_factor(link: Link) -> _Factor:
    fixed = np.where(link.asks[:, None] == link.answers[None, :], 0.0, NEVER)
    return _Factor(nodes=(link.layer, link.node), leaf=None, fixed=fixed)


def _aligned(values: Floats, nodes: Sequence[int], clique: Sequence[int]) -> Floats:
    """A table over some nodes with its axes where the clique has them, and axes of length 1 for the others."""
    order = sorted(range(len(nodes)), key=lambda axis: clique.index(nodes[axis]))
    moved = values.transpose(order)
    sizes = iter(moved.shape)
    return moved.reshape([next(sizes) if node in nodes else 1 for node in clique])


def _minimum(values: Floats, clique: Sequence[int], nodes: Sequence[int]) -> Floats:
    """The least over all axes but those of some nodes, in the order of these."""
    gone = tuple(axis for axis, node in enumerate(clique) if node not in nodes)
    left = [node for node in clique if node in nodes]
    return values.min(axis=gone).transpose([left.index(node) for node in nodes])


def _entries(node: int, around: set[int], sizes: dict[int, int]) -> float:
    entries = float(sizes[node])
    for other in around:
        entries *= sizes[other]
    return entries
