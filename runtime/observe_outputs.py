"""In which range the outputs of int8 kernels lie: those of the layer with all that its kernel takes over.

What is added there is stored as the output is, so the range holds it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..kernels.here import machine_here
from ..kernels.registry import REGISTRY
from ..kernels.select import select
from ..kernels.spec import KernelSpec
from ..planner.example import random_example
from ..planner.schema import Plan
from ..trainer.int8_layers import Int8Layer, int8_layers, widen
from .compile import is_swapped
from .fuse import fuse
from .narrow import narrowed_model
from .swap import swap_layers


@torch.no_grad()
def observe_outputs(model: nn.Module, plan: Plan, batches: Iterable[Tensor]) -> None:
    """Set `y_range` of the int8 layers of a trained network.

    The network is put together as the runtime will, but with dense float32 kernels: batch-norm folded, ReLUs and
    additions taken in by the very same rules. Inputs are not rounded there.

    Parameters
    ----------
    model : nn.Module
        On the CPU.
    batches : iterable of Tensor
        Normalised images, of the plan's input shape.
    """
    names = int8_layers(plan)
    if not names:
        return
    machine = machine_here("cpu")
    fused = fuse(narrowed_model(model, plan), random_example(model, plan.input_shape))
    chosen = {}
    for layer in plan.layers:
        if is_swapped(layer):
            problem = replace(layer.problem.as_dense(), dtype="float32")
            kernel = select(problem, machine, REGISTRY)
            assert isinstance(kernel, KernelSpec)  # torch's own runs everything
            chosen[layer.name] = (problem, kernel)
    swap_layers(fused, chosen)
    for name in names:
        module = model.get_submodule(name)
        assert isinstance(module, Int8Layer)
        module.y_range.zero_()
        fused.model.get_submodule(name).register_forward_hook(partial(_see, module.y_range))
    for images in batches:
        fused.model(images)


def _see(seen: Tensor, module: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
    """A residual, the second argument, is stored as the output is."""
    for values in (y, *given[1:]):
        widen(seen, values)
