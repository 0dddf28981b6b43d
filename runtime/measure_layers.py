"""Time each swapped layer, with its real weights, against the dense kernel that the plan names for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..kernels.dense import TORCH_DTYPES
from ..kernels.pattern import parse_pattern
from ..kernels.progress import Progress
from ..kernels.quantisation import dequantise, quantise
from ..kernels.reference import reference
from ..kernels.reference_int8 import reference_int8
from ..kernels.registry import kernel_named
from ..kernels.weight_view import bias_of, weight_view
from ..planner.schema import LayerPlan, Plan
from ..profiles.stopwatch import HOST, Stopwatch
from .compile import is_swapped
from .narrow import narrowed_model
from .schema import LayerTime
from .swapped_layer import SwappedLayer


def measure_layers(
    model: nn.Module,
    plan: Plan,
    *,
    budget_s: float,
    progress: Progress,
    names: Collection[str] | None = None,
    watch: Stopwatch = HOST,
) -> tuple[LayerTime, ...]:
    """Time every swapped layer against its dense rival, in alternation.

    The rival of a layer under SAS is the layer that it was made from.

    Parameters
    ----------
    model : nn.Module
        Carries the trained, masked weights, on the device of `watch`.
    budget_s : float
        For all layers together.
    names : collection of str or None
        Which layers; all that are swapped when left out.
    watch : Stopwatch
        What takes the times.

    Returns
    -------
    tuple of LayerTime
        `reverted` is True where the planned kernel was not faster than the dense one; never under SAS, which no dense
        layer of this size can stand in for.
    """
    model = narrowed_model(model, plan)
    swapped = [layer for layer in plan.layers if is_swapped(layer) and (names is None or layer.name in names)]
    generator = torch.Generator().manual_seed(0)
    times = []
    for index, layer in enumerate(swapped):
        progress("measuring layers", index, len(swapped))
        module = model.get_submodule(layer.name)
        times.append(_measure_layer(module, layer, generator, budget_s=budget_s / len(swapped), watch=watch))
    progress("measuring layers", len(swapped), len(swapped))
    return tuple(times)


def _measure_layer(
    module: nn.Module, layer: LayerPlan, generator: torch.Generator, *, budget_s: float, watch: Stopwatch
) -> LayerTime:
    slots = parse_pattern(layer.problem.pattern).slots
    kernel, rival = kernel_named(layer.chosen.kernel), kernel_named(layer.dense.kernel)
    planned = SwappedLayer.of(module, replace(layer.problem, dtype=kernel.dtype), kernel, relu=False)
    dense = SwappedLayer(
        replace(layer.problem.as_dense() if slots > 1 else layer.problem, dtype=rival.dtype),
        rival,
        weight=planned.weight[:, ::slots].contiguous(),
        bias=planned.bias,
        relu=False,
    )
    # As the plan counts it: activations are as the dense kernel has them, and another form pays for the conversions.
    x = torch.randn(layer.problem.input_shape, generator=generator)
    x = x.to(watch.device, TORCH_DTYPES[dense.problem.dtype]).contiguous(memory_format=dense.memory_format)

    def run_planned() -> Tensor:
        return planned.run(x).contiguous(memory_format=dense.memory_format)

    expected = _expected(planned, module, x)
    error = float((run_planned().double() - expected.double()).abs().max())
    planned_s, dense_s = watch.kernels([run_planned, lambda: dense.run(x)], budget_s=budget_s)
    return LayerTime(
        name=layer.name,
        kernel=planned.kernel.name,
        dense_kernel=dense.kernel.name,
        time_s=planned_s,
        dense_time_s=dense_s,
        predicted_time_s=layer.chosen.time_s,
        max_abs_error=error,
        reverted=slots == 1 and planned_s.median >= dense_s.median,
    )


def _expected(planned: SwappedLayer, module: nn.Module, x: Tensor) -> Tensor:
    problem, weight, bias = planned.problem, weight_view(module).detach(), bias_of(module)
    by = planned.quantisation
    if by is None:
        return reference(problem, weight, bias, False, x.to(TORCH_DTYPES[problem.dtype]))
    stored = quantise(x, by.x_scale, by.x_zero_point)
    return dequantise(
        reference_int8(problem, weight, bias, False, stored, quantisation=by), by.y_scale, by.y_zero_point
    )
