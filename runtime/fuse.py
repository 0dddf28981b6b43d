"""Fold batch-norm into the layer before it, and find the ReLU that a kernel can take over."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_TRACE_FAILURES = (
    fx.proxy.TraceError,
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    KeyError,
    NotImplementedError,
)
"""What torch.fx raises on models that it cannot trace (control flow on values, len() of a proxy, ...)."""

_RELU_FUNCTIONS = (torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """A copy of a model in evaluation mode, ready for layers to be swapped.

    Attributes
    ----------
    relu_nodes : dict
        From the name of a layer to the graph node of the ReLU that alone consumes it.
    traced : bool
        False where torch.fx could not trace the model; then nothing was folded, and only modules can be swapped.
    """

    model: nn.Module
    relu_nodes: dict[str, fx.Node]
    traced: bool


def fuse(model: nn.Module) -> Fused:
    """Copy a model, fold each batch-norm that follows a convolution, and locate fusable ReLUs."""
    frozen = copy.deepcopy(model).eval()
    try:
        traced = fx.symbolic_trace(frozen)
    except _TRACE_FAILURES:
        return Fused(model=frozen, relu_nodes={}, traced=False)
    calls = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        before = _sole_producer(node, calls)
        if before is None or not isinstance(modules.get(str(node.target)), nn.BatchNorm2d):
            continue
        conv = modules[str(before.target)]
        if not isinstance(conv, nn.Conv2d):
            continue
        modules[str(before.target)] = fuse_conv_bn_eval(conv, modules[str(node.target)])
        replace_module(traced, str(before.target), modules[str(before.target)])
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    relu_nodes = {}
    for node in traced.graph.nodes:
        before = _sole_producer(node, calls) if _is_relu(node, modules) else None
        if before is not None and isinstance(modules.get(str(before.target)), nn.Conv2d | nn.Linear):
            relu_nodes[str(before.target)] = node
    traced.recompile()
    return Fused(model=traced, relu_nodes=relu_nodes, traced=True)


def absorb_relu(fused: Fused, name: str) -> bool:
    """Take the ReLU behind a layer out of the graph; True where there was one."""
    node = fused.relu_nodes.get(name)
    if node is None or not isinstance(fused.model, fx.GraphModule):
        return False
    node.replace_all_uses_with(node.all_input_nodes[0])
    fused.model.graph.erase_node(node)
    fused.model.recompile()
    return True


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one with that dotted name."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _sole_producer(node: fx.Node, calls: Counter[str]) -> fx.Node | None:
    """The module call whose result this node alone consumes, if that module is called only there."""
    if len(node.all_input_nodes) != 1:
        return None
    before = node.all_input_nodes[0]
    if before.op != "call_module" or len(before.users) != 1 or calls[str(before.target)] != 1:
        return None
    if node.op == "call_module" and calls[str(node.target)] != 1 and not _is_stateless(node):
        return None
    return before


def _is_stateless(node: fx.Node) -> bool:
    module = node.graph.owning_module
    return module is not None and isinstance(module.get_submodule(str(node.target)), nn.ReLU)


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules.get(str(node.target)), nn.ReLU)
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELU_FUNCTIONS
