"""Time each swapped layer, with its real weights, against the dense kernel that the plan names for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.dense import MEMORY_FORMATS, TORCH_DTYPES
from ..kernels.progress import Progress
from ..kernels.reference import reference
from ..kernels.registry import kernel_named
from ..kernels.spec import KernelSpec
from ..planner.schema import LayerPlan, Plan
from ..profiles.timing import measure_alternating
from .compile import is_swapped, layer_bias, layer_weight
from .schema import LayerTime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """Memory order and dtype of the activations around a layer."""

    dtype: torch.dtype
    memory_format: torch.memory_format

    def of(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=self.memory_format)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rival:
    """One kernel packed for a layer; a call takes and gives activations in the form around the layer."""

    kernel: KernelSpec
    packed: Any
    own: _Form

    def call(self, x: Tensor, around: _Form) -> Callable[[], Tensor]:
        return lambda: around.of(self.kernel.run(self.packed, self.own.of(x)))


def measure_layers(model: nn.Module, plan: Plan, *, budget_s: float, progress: Progress) -> tuple[LayerTime, ...]:
    """Time every swapped layer against its dense rival, in alternation.

    Parameters
    ----------
    model : nn.Module
        Carries the trained, masked weights.
    budget_s : float
        For all layers together.

    Returns
    -------
    tuple of LayerTime
        `reverted` is True where the planned kernel was not faster than the dense one.
    """
    swapped = [layer for layer in plan.layers if is_swapped(layer)]
    generator = torch.Generator().manual_seed(0)
    times = []
    for index, layer in enumerate(swapped):
        progress("measuring layers", index, len(swapped))
        times.append(_measure_layer(model.get_submodule(layer.name), layer, generator, budget_s / len(swapped)))
    progress("measuring layers", len(swapped), len(swapped))
    return tuple(times)


def _measure_layer(module: nn.Module, layer: LayerPlan, generator: torch.Generator, budget_s: float) -> LayerTime:
    weight, bias = layer_weight(module), layer_bias(module)
    planned = _pack(kernel_named(layer.chosen.kernel), layer, weight, bias)
    dense = _pack(kernel_named(layer.dense.kernel), layer, weight, bias)
    # As the plan counts it: a kernel of another form than the dense network's pays for the conversions.
    around = dense.own
    x = around.of(torch.randn(layer.problem.input_shape, generator=generator))
    calls = [rival.call(x, around) for rival in (planned, dense)]
    expected = reference(layer.problem, weight, bias, False, planned.own.of(x))
    error = float((calls[0]().double() - expected.double()).abs().max())
    planned_s, dense_s = measure_alternating(calls, budget_s=budget_s)
    return LayerTime(
        name=layer.name,
        kernel=planned.kernel.name,
        dense_kernel=dense.kernel.name,
        time_s=planned_s,
        dense_time_s=dense_s,
        predicted_time_s=layer.chosen.time_s,
        max_abs_error=error,
        reverted=planned_s.median >= dense_s.median,
    )


def _pack(kernel: KernelSpec, layer: LayerPlan, weight: Tensor, bias: Tensor | None) -> _Rival:
    problem = replace(layer.problem, dtype=kernel.dtype)
    memory_format = MEMORY_FORMATS[kernel.layout] if problem.op == "conv2d" else torch.contiguous_format
    return _Rival(
        kernel=kernel,
        packed=kernel.pack(problem, weight, bias, False),
        own=_Form(dtype=TORCH_DTYPES[kernel.dtype], memory_format=memory_format),
    )
