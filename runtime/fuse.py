"""Fold batch-norm into the layer before it, and find the residual addition and the ReLU that a kernel can take over."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..kernels.sas import SlotLayer, trace_whole_layers

_TRACE_FAILURES = (
    fx.proxy.TraceError,
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    KeyError,
)
"""What torch.fx raises on models that it cannot trace (control flow on values, len() of a proxy, ...)."""

_LAYERS = nn.Conv1d | nn.Conv2d | nn.Linear | SlotLayer
_CONVOLUTIONS = nn.Conv1d | nn.Conv2d | SlotLayer
_RELU_FUNCTIONS = (torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_)
_ADD_FUNCTIONS = (operator.add, torch.add)
_ADD_IN_PLACE = (operator.iadd, "add_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """A copy of a model in evaluation mode, ready for layers to be swapped.

    Attributes
    ----------
    calls : dict
        From the name of a layer to the graph node that calls it, for layers that are called once. Empty where torch.fx
        could not trace the model; then nothing was folded, and only modules can be swapped.
    """

    model: nn.Module
    calls: dict[str, fx.Node]

    @property
    def traced(self) -> bool:
        return isinstance(self.model, fx.GraphModule)


def fuse(model: nn.Module, example: Tensor | None = None) -> Fused:
    """Copy a model, fold each batch-norm that follows a convolution, and locate the calls of its layers.

    Parameters
    ----------
    example : Tensor or None
        One batch. Only with it is known which additions are those of two tensors of the same shape.
    """
    frozen = copy.deepcopy(model).eval()
    try:
        traced = trace_whole_layers(frozen)
    except _TRACE_FAILURES:
        return Fused(model=frozen, calls={})
    counts = Counter(str(node.target) for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        _fold_batch_norm(traced, node, counts)
    traced.recompile()
    if example is not None:
        with torch.inference_mode():
            ShapeProp(traced).propagate(example)
    calls = {
        str(node.target): node
        for node in traced.graph.nodes
        if node.op == "call_module"
        and counts[str(node.target)] == 1
        and isinstance(traced.get_submodule(str(node.target)), _LAYERS)
    }
    return Fused(model=traced, calls=calls)


def absorb_residual(fused: Fused, name: str) -> bool:
    """Make the addition behind a layer a second argument of its call; True where there was one.

    Only additions to a tensor of the output's own shape, whose result the layer's output alone goes into.
    """
    node = fused.calls.get(name)
    add = _only_user(node)
    if node is None or add is None or not isinstance(fused.model, fx.GraphModule):
        return False
    residual = _other_summand(add, node)
    if residual is None or _shape(residual) is None or _shape(residual) != _shape(node):
        return False
    order = {each: place for place, each in enumerate(fused.model.graph.nodes)}
    # Where the residual is computed after the layer, the layer moves behind it: nothing may change its input meanwhile.
    source = node.all_input_nodes[0]
    if any(order[node] < order[user] < order[add] and _mutates(user, source) for user in source.users):
        return False
    if _mutates(add, residual) and len(residual.users) > 1:
        return False
    with fused.model.graph.inserting_before(add):
        call = fused.model.graph.call_module(name, (*node.args, residual))
    call.meta = add.meta
    add.replace_all_uses_with(call)
    fused.model.graph.erase_node(add)
    fused.model.graph.erase_node(node)
    fused.model.recompile()
    fused.calls[name] = call
    return True


def absorb_relu(fused: Fused, name: str) -> bool:
    """Take the ReLU behind a layer out of the graph; True where there was one."""
    node = fused.calls.get(name)
    relu = _only_user(node)
    if node is None or relu is None or not isinstance(fused.model, fx.GraphModule) or not _is_relu(relu):
        return False
    relu.replace_all_uses_with(node)
    fused.model.graph.erase_node(relu)
    fused.model.recompile()
    return True


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one with that dotted name."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _fold_batch_norm(traced: fx.GraphModule, node: fx.Node, counts: Counter[str]) -> None:
    if node.op != "call_module" or counts[str(node.target)] != 1:
        return
    before = node.all_input_nodes[0]
    if before.op != "call_module" or len(before.users) != 1 or counts[str(before.target)] != 1:
        return
    layer, norm = traced.get_submodule(str(before.target)), traced.get_submodule(str(node.target))
    axes = layer.get_parameter("weight").dim() - 2 if isinstance(layer, _CONVOLUTIONS) else 0
    if not ((axes == 2 and isinstance(norm, nn.BatchNorm2d)) or (axes == 1 and isinstance(norm, nn.BatchNorm1d))):
        return
    # A layer under SAS scales its rows like any other; torch asks for no more than a weight and a bias.
    replace_module(traced, str(before.target), fuse_conv_bn_eval(cast(nn.Conv2d, layer), norm))
    node.replace_all_uses_with(before)
    traced.graph.erase_node(node)


def _only_user(node: fx.Node | None) -> fx.Node | None:
    return next(iter(node.users)) if node is not None and len(node.users) == 1 else None


def _other_summand(add: fx.Node, node: fx.Node) -> fx.Node | None:
    """What an addition adds to a node; None where it is no plain addition of two tensors."""
    adds = (
        add.target in (*_ADD_FUNCTIONS, operator.iadd) if add.op == "call_function" else add.target in ("add", "add_")
    )
    if add.op not in ("call_function", "call_method") or not adds or add.kwargs or len(add.args) != 2:
        return None
    others = [each for each in add.args if each is not node]
    return others[0] if len(others) == 1 and isinstance(others[0], fx.Node) else None


def _mutates(user: fx.Node, node: fx.Node) -> bool:
    """Whether an operation may write into one of its inputs."""
    if user.op == "call_module":
        module = user.graph.owning_module
        return module is not None and bool(getattr(module.get_submodule(str(user.target)), "inplace", False))
    if user.op == "call_method":
        return str(user.target).endswith("_") and user.args[0] is node
    name = getattr(user.target, "__name__", "")
    in_place = user.target in _ADD_IN_PLACE or name.endswith("_") or bool(user.kwargs.get("inplace", False))
    return in_place and bool(user.args) and user.args[0] is node


def _shape(node: fx.Node) -> torch.Size | None:
    found = node.meta.get("tensor_meta")
    return found.shape if isinstance(found, TensorMetadata) else None


def _is_relu(node: fx.Node) -> bool:
    if node.op == "call_module":
        module = node.graph.owning_module
        return module is not None and isinstance(module.get_submodule(str(node.target)), nn.ReLU)
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return node.op == "call_function" and node.target in _RELU_FUNCTIONS
