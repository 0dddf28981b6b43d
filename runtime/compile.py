"""Swap the layers of a model for kernels, as the plan says."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from ..kernels.errors import InputError, UnsupportedError
from ..kernels.pattern import DENSE, parse_pattern
from ..kernels.registry import kernel_named
from ..kernels.sas import SlotLayer
from ..kernels.spec import Machine
from ..planner.example import random_example
from ..planner.match import check_plan_fits
from ..planner.options import NO_KERNEL
from ..planner.schema import LayerPlan, Plan
from .fuse import fuse
from .narrow import narrowed_model
from .swap import swap_layers


def compile_model(model: nn.Module, plan: Plan, *, machine: Machine, keep_dense: Collection[str] = ()) -> nn.Module:
    """Build the network that the plan describes out of a model whose weights carry the plan's zeros.

    Layers are cut to the plan's widths for good. Batch-norm is folded into the convolution before it; a ReLU behind a
    swapped layer, an addition to its output (the end of a residual block) and a ReLU behind that become part of its
    kernel. Between kernels of the same blocked layout activations stay blocked.
    Layers that the plan leaves dense stay torch modules, so that the host (eager or torch.compile) runs them as it
    runs the dense network.

    Parameters
    ----------
    model : nn.Module
        With the trained, masked weights; not changed.
    keep_dense : collection of str
        Layers to leave to torch although the plan swaps them (they lost in measurement).

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
    check_plan_fits(plan, model)
    fused = fuse(narrowed_model(model, plan), random_example(model, plan.input_shape))
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
        kernel = kernel_named(layer.chosen.kernel)
        reason = kernel.why_unsupported(layer.problem, machine)
        if reason is not None:
            raise UnsupportedError(
                f"layer {layer.name}: kernel {kernel.name} of the plan cannot run here: {reason}; "
                "plan again with a profile of this machine"
            )
        chosen[layer.name] = (layer.problem, kernel)
    swap_layers(fused, chosen)
    return fused.model.requires_grad_(False)


def is_swapped(layer: LayerPlan) -> bool:
    """Whether the plan runs the layer on a kernel that skips zeros; dense layers are left to the host in its dtype."""
    return layer.chosen.pattern != DENSE.text and layer.chosen.kernel != NO_KERNEL
