"""Residual branches: what lies beside a shortcut and can be left out as a whole."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn

from .in_place import stop_in_place

_ADDITIONS = {operator.add, operator.iadd, torch.add}
_ADDITION_METHODS = {"add", "add_"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch:
    """One operand of an addition, with all that is computed for it alone.

    Attributes
    ----------
    modules : frozenset of str
        Those with parameters of their own.
    addition, shortcut : fx.Node
        Without the branch the addition is its other operand.
    """

    modules: frozenset[str]
    addition: fx.Node
    shortcut: fx.Node


def find_branches(traced: fx.GraphModule) -> tuple[Branch, ...]:
    """The branches of a traced model that hold parameters, smallest first."""
    ancestors: dict[fx.Node, frozenset[fx.Node]] = {}
    for node in traced.graph.nodes:
        ancestors[node] = frozenset({node}).union(*(ancestors[source] for source in node.all_input_nodes))
    found = [branch for node in traced.graph.nodes if _adds(node) for branch in _beside(node, ancestors, traced)]
    return tuple(sorted(found, key=lambda branch: len(branch.modules)))


def remove_branches(traced: fx.GraphModule, removed: Collection[frozenset[str]]) -> None:
    """Leave branches out of a traced model, in place; each is named by its modules with parameters."""
    for branch in find_branches(traced):
        if branch.modules in removed:
            # What changed the sum in place would now change the shortcut, which others may read.
            for user in branch.addition.users:
                stop_in_place(traced, user)
            branch.addition.replace_all_uses_with(branch.shortcut)
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()


def _adds(node: fx.Node) -> bool:
    if len(node.all_input_nodes) != 2 or len(node.args) != 2:
        return False
    if node.op == "call_method":
        return node.target in _ADDITION_METHODS
    return node.op == "call_function" and node.target in _ADDITIONS


def _beside(node: fx.Node, ancestors: dict[fx.Node, frozenset[fx.Node]], traced: fx.GraphModule) -> Iterator[Branch]:
    first, second = node.all_input_nodes
    for shortcut, end in ((first, second), (second, first)):
        own = ancestors[end] - ancestors[shortcut]
        if all(user in own or user is node for each in own for user in each.users):
            modules = frozenset(str(each.target) for each in own if each.op == "call_module" and _weighs(traced, each))
            if modules:
                yield Branch(modules=modules, addition=node, shortcut=shortcut)


def _weighs(traced: fx.GraphModule, node: fx.Node) -> bool:
    module: nn.Module = traced.get_submodule(str(node.target))
    return next(module.parameters(), None) is not None
