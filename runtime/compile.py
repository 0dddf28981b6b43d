"""Swap the layers of a model for kernels, as the plan says."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from ..kernels.errors import InputError, UnsupportedError
from ..kernels.keep_memory import keep_memory
from ..kernels.pattern import DENSE, parse_pattern
from ..kernels.registry import kernel_named
from ..kernels.sas import SlotLayer
from ..kernels.select import why_ineligible
from ..kernels.spec import Machine
from ..planner.example import random_example
from ..planner.match import check_plan_fits
from ..planner.options import NO_KERNEL
from ..planner.schema import LayerPlan, Plan
from ..trainer.evaluate import device_of
from ..trainer.int8_layers import Int8Layer, plain_layer
from .fuse import fuse, replace_module
from .narrow import narrowed_model
from .planned_machine import planned_machine
from .swap import swap_layers


def compile_model(
    model: nn.Module,
    plan: Plan,
    *,
    machine: Machine | None = None,
    keep_dense: Collection[str] = (),
    device: torch.device | None = None,
) -> nn.Module:
    """Build the network that the plan describes out of a model whose weights carry the plan's zeros.

    Layers are cut to the plan's widths for good. Batch-norm is folded into the convolution before it; a ReLU behind a
    swapped layer, an addition to its output (the end of a residual block) and a ReLU behind that become part of its
    kernel. Between kernels of the same blocked layout activations stay blocked.
    The process keeps the memory that its tensors free, as it did where times were measured (`keep_memory`).
    Layers that the plan leaves dense stay torch modules, so that the host (eager or torch.compile) runs them as it
    runs the dense network. A plan for a GPU gives a network on the GPU, with packed weights there.

    Parameters
    ----------
    model : nn.Module
        With the trained, masked weights, on any device; not changed.
    machine : Machine or None
        That of the plan as it is found here when None.
    keep_dense : collection of str
        Layers to leave to torch although the plan swaps them (they lost in measurement).
    device : torch.device or None
        Where the network goes; that of the machine's kernels when None.

    Returns
    -------
    nn.Module
        In evaluation mode, for inputs of exactly the plan's shape.

    Raises
    ------
    InputError
        If the plan is for another model, or the weights do not carry its zeros.
    UnsupportedError
        If a kernel that the plan names cannot run on this machine; it is never silently replaced.
    """
    keep_memory()
    check_plan_fits(plan, model)
    machine = planned_machine(plan) if machine is None else machine
    fused = fuse(narrowed_model(model, plan), random_example(model, plan.input_shape).to(device_of(model)))
    chosen = {}
    for layer in plan.layers:
        if not is_swapped(layer) or layer.name in keep_dense:
            continue
        if parse_pattern(layer.chosen.pattern).slots > 1 and not isinstance(
            fused.model.get_submodule(layer.name), SlotLayer
        ):
            raise InputError(
                f"the plan puts layer {layer.name} under {layer.chosen.pattern}, the model has it dense; "
                "give sparseplan.trainer.sas.network_of(model, plan), with its trained weights"
            )
        if layer.chosen.dtype == "int8" and not isinstance(fused.model.get_submodule(layer.name), Int8Layer):
            raise InputError(
                f"the plan computes layer {layer.name} in int8, the model has it plain; "
                "give sparseplan.trainer.planned_network.planned_network(model, plan), with its trained weights"
            )
        kernel = kernel_named(layer.chosen.kernel)
        reason = why_ineligible(kernel, layer.problem, machine)
        if reason is not None:
            raise UnsupportedError(
                f"layer {layer.name}: kernel {kernel.name} of the plan cannot run here: {reason}; "
                "plan again with a profile of this machine"
            )
        chosen[layer.name] = (layer.problem, kernel)
    fused.model.to(torch.device(machine.device) if device is None else device)
    swap_layers(fused, chosen)
    for name, module in list(fused.model.named_modules()):
        if isinstance(module, Int8Layer):
            replace_module(fused.model, name, plain_layer(module))
    return fused.model.requires_grad_(False)


def is_swapped(layer: LayerPlan) -> bool:
    """Whether the plan puts a kernel in the layer's place: one that skips zeros, or a dense one that torch has not.

    Other dense layers are left to the host in its dtype.
    """
    chosen = layer.chosen
    return chosen.kernel != NO_KERNEL and (chosen.pattern != DENSE.text or chosen.other_dense)
