"""Turn a trained ReLU network into one under structured activation sparsification (SAS), with the same outputs.

    network = convert(model, 2)

SAS stands in the place of the activation before a layer. Where nothing else reads that ReLU it goes away; where a
shortcut does, it stays for the shortcut alone, and the layer reads what comes before it. Max-pooling between the two is
passed over: it commutes with ReLU, so the layer then reads the pooled pre-activation. Layers that do not follow an
activation (the first one, as a rule) stay dense.

References
----------
Sekikawa and Yashima, SAS: Structured Activation Sparsification, ICLR 2024.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from ..kernels.errors import InputError, UnsupportedError
from ..kernels.pattern import SasPart, parse_pattern
from ..kernels.sas import trace_whole_layers, why_slots_undefined
from ..planner.in_place import stop_in_place
from ..planner.schema import Plan
from .sas_layers import SasKind, sas_layer

_MODULES: dict[type[nn.Module], SasKind] = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.GELU: "smooth", nn.SiLU: "smooth"}
_FUNCTIONS: dict[object, SasKind] = {
    torch.relu: "relu",
    torch.relu_: "relu",
    nn.functional.relu: "relu",
    nn.functional.relu6: "relu6",
    nn.functional.gelu: "smooth",
    nn.functional.silu: "smooth",
}
_POOLS = (nn.MaxPool1d, nn.MaxPool2d)
_POOL_FUNCTIONS = (nn.functional.max_pool1d, nn.functional.max_pool2d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A layer that can be converted: its node, the activation before it, and what that does."""

    node: fx.Node
    activation: fx.Node
    kind: SasKind


def convert(
    model: nn.Module, m: int, layers: Collection[str] | None = None, *, learn_thresholds: bool = False
) -> fx.GraphModule:
    """A copy of a trained network under SAS 1:m, which computes what the network did until it is trained.

    Parameters
    ----------
    model : nn.Module
        Left as it was; `torch.fx` must be able to trace it.
    m : int
        Slots of each activation: 2, 4, 8, ...; weights grow m times, executed multiply-adds stay.
    layers : collection of str, optional
        Names of the layers to convert; by default all that follow an activation.
    learn_thresholds : bool
        Learn where each channel changes its slot; starts at 0, where the outputs are still the same.

    Raises
    ------
    InputError
        If a named layer is none of the model's, or cannot be converted.
    UnsupportedError
        If the network cannot be traced, or m is no power of two.
    """
    why = why_slots_undefined(SasPart(name=f"sas:1:{m}", n=1, m=m)) if m > 1 else "m must be at least 2"
    if why is not None:
        raise UnsupportedError(f"SAS 1:{m}: {why}")
    network = _traced(model)
    places = {str(place.node.target): place for place in _places(network)}
    wanted = places.keys() if layers is None else layers
    for name in wanted:
        if name not in places:
            raise InputError(
                f"layer {name!r} cannot be put under SAS: it is no Conv1d, Conv2d or Linear right behind a ReLU, "
                f"ReLU6, GELU or SiLU; those are {', '.join(places) or 'none'}"
            )
        _convert_place(network, places[name], m, learn_thresholds=learn_thresholds)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


def layers_with_kernels(model: nn.Module) -> tuple[str, ...]:
    """Layers that SAS kernels can run once they are converted: those behind a ReLU, GELU or SiLU, but not a ReLU6.

    Raises
    ------
    UnsupportedError
        If the network cannot be traced.
    """
    return tuple(str(place.node.target) for place in _places(_traced(model)) if place.kind != "relu6")


def uses_sas(plan: Plan) -> bool:
    """Whether a plan puts layers under SAS."""
    return any(parse_pattern(layer.chosen.pattern).slots > 1 for layer in plan.layers)


def network_of(model: nn.Module, plan: Plan) -> nn.Module:
    """The network that is trained to a plan: a copy with its SAS layers converted, or the model itself."""
    by_slots: dict[int, list[str]] = {}
    for layer in plan.layers:
        slots = parse_pattern(layer.chosen.pattern).slots
        if slots > 1:
            by_slots.setdefault(slots, []).append(layer.name)
    for slots, names in by_slots.items():
        model = convert(model, slots, names)
    return model


def _traced(model: nn.Module) -> fx.GraphModule:
    try:
        return trace_whole_layers(copy.deepcopy(model))
    except TraceError as error:
        reason = str(error).partition("\n")[0]
        raise UnsupportedError(
            f"torch.fx cannot trace {type(model).__name__}: {reason}; SAS needs a network whose path does "
            "not depend on its values"
        ) from None


def _places(network: fx.GraphModule) -> list[_Place]:
    called = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    found = []
    for node in network.graph.nodes:
        if node.op != "call_module" or not isinstance(network.get_submodule(str(node.target)), _LAYERS):
            continue
        # A layer that is called twice would need the same activation in both places.
        if called.count(str(node.target)) > 1:
            continue
        before = node.args[0]
        assert isinstance(before, fx.Node)
        while _is_pool(network, before):
            before = before.all_input_nodes[0]
        kind = _kind_of(network, before)
        if kind is not None and (kind != "smooth" or before is node.args[0]):
            found.append(_Place(node=node, activation=before, kind=kind))
    return found


def _kind_of(network: fx.GraphModule, node: fx.Node) -> SasKind | None:
    if node.op == "call_module":
        return _MODULES.get(type(network.get_submodule(str(node.target))))
    if node.op == "call_function":
        return _FUNCTIONS.get(node.target)
    return "relu" if node.op == "call_method" and node.target in ("relu", "relu_") else None


def _is_pool(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), _POOLS)
    return node.op == "call_function" and node.target in _POOL_FUNCTIONS


def _convert_place(network: fx.GraphModule, place: _Place, m: int, *, learn_thresholds: bool) -> None:
    name = str(place.node.target)
    made = sas_layer(network.get_submodule(name), slots=m, kind=place.kind, threshold=learn_thresholds)
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, made.train(network.training))
    if place.kind == "smooth":
        return
    # An activation that stays for a shortcut must leave what the layer now reads alone.
    stop_in_place(network, place.activation)
    source = place.activation.all_input_nodes[0]
    place.node.replace_input_with(_argument(place.node), _above(network, _argument(place.node), place, source))


def _above(network: fx.GraphModule, node: fx.Node, place: _Place, source: fx.Node) -> fx.Node:
    """The node that gives what `node` gives, but without the activation: pools are run again on the pre-activation."""
    if node is place.activation:
        return source
    inner = node.all_input_nodes[0]
    with network.graph.inserting_before(place.node):
        return network.graph.node_copy(node, lambda old: _above(network, inner, place, source) if old is inner else old)


def _argument(node: fx.Node) -> fx.Node:
    before = node.args[0]
    assert isinstance(before, fx.Node)
    return before
