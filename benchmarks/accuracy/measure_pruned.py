"""Time of a pruned network that no plan was made for, and of its layers, on the fastest kernels there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.dense import TORCH_DTYPES
from sparseplan.kernels.pattern import DENSE
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.select import eligible
from sparseplan.kernels.spec import KernelSpec
from sparseplan.kernels.weight_view import weight_view
from sparseplan.kernels.weights import actual_sparsity
from sparseplan.planner.capture import capture
from sparseplan.planner.narrow import living_units
from sparseplan.profiles.stopwatch import HOST
from sparseplan.runtime.fuse import fuse
from sparseplan.runtime.hosts import HOSTS, network_calls
from sparseplan.runtime.swap import swap_layers
from sparseplan.runtime.swapped_layer import SwappedLayer
from sparseplan.trainer.assignment import Assignment, LayerSparsity
from sparseplan.trainer.masked_width import MaskedWidth
from sparseplan.trainer.masks import masked_layers
from sparseplan.trainer.shrink import cut_copy

LAYER_BUDGET_S, NETWORK_BUDGET_S = 1.0, 6.0
SURE_FRAC = 0.97
"""A kernel takes the place of torch's own where it was at least this much faster."""
ERROR_LIMIT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedTimes:
    """Medians, seconds; layers by name: dense, and as they are now."""

    time_s: float
    dense_time_s: float
    layers: dict[str, tuple[float, float]]


def measure_pruned(dense: nn.Module, pruned: nn.Module, assignment: Assignment, example: Tensor) -> PrunedTimes:
    """Race the kernels of each layer that lost weights, then whole networks in alternation.

    Channels that widths took are cut out of the network; in the layers left kernels skip what else is zero. Both
    networks run in every way torch has here, and the fastest of each counts.

    Parameters
    ----------
    dense, pruned : nn.Module
        In evaluation mode; the pruned one carries the assignment's zeros.
    example : Tensor
        One batch.

    Raises
    ------
    AssertionError
        If the cut network computes something else.
    """
    cut, patterns = _cut(pruned, assignment).eval(), _patterns(assignment)
    before = {layer.name: layer.problem for layer in capture(dense, example).layers}
    chosen: dict[str, tuple[Problem, KernelSpec]] = {}
    layers: dict[str, tuple[float, float]] = {}
    for layer in capture(cut, example).layers:
        module = cut.get_submodule(layer.name)
        problem = _on_threads(layer.problem)
        if layer.name in patterns:
            problem = problem.with_sparsity(patterns[layer.name], actual_sparsity(weight_view(module).detach()))
        elif problem == _on_threads(before[layer.name]):
            continue
        found = _race(problem, module)
        whole = _race(_on_threads(before[layer.name]), dense.get_submodule(layer.name))
        layers[layer.name] = (min(each[0] for each in whole.values()), min(each[0] for each in found.values()))
        best = min(found, key=lambda name: found[name][0])
        torch_s = min((time_s for time_s, kernel in found.values() if "dense" in kernel.patterns), default=math.inf)
        if "dense" not in found[best][1].patterns and found[best][0] < SURE_FRAC * torch_s:
            chosen[layer.name] = (problem, found[best][1])
    with torch.inference_mode():
        fused = fuse(cut, example)
        swap_layers(fused, chosen)
        expected = pruned(example)
        calls = [*network_calls(fuse(dense, example).model, example, HOSTS, HOST).values()]
        ours = [*network_calls(fused.model, example, HOSTS, HOST).values()]
        for call in ours:
            assert float((call() - expected).abs().max()) <= ERROR_LIMIT * float(expected.abs().max())
        times = [each.median for each in HOST.networks([*calls, *ours], budget_s=NETWORK_BUDGET_S)]
    return PrunedTimes(time_s=min(times[len(calls) :]), dense_time_s=min(times[: len(calls)]), layers=layers)


def _patterns(assignment: Assignment) -> dict[str, str]:
    return {each.name: each.pattern.text for each in assignment if isinstance(each, LayerSparsity)}


def _cut(model: nn.Module, assignment: Assignment) -> nn.Module:
    """Without the channels that the assignment took."""
    widths = [each for each in masked_layers(model, assignment) if isinstance(each, MaskedWidth)]
    for width in widths:
        width.mask.zero_()
        width.mask[living_units(model, width.target.group, width.target.kept)] = 1.0
    cut = cut_copy(model, widths)
    assert cut is not None
    return cut.model


def _on_threads(problem: Problem) -> Problem:
    return replace(problem, threads=torch.get_num_threads())


def _race(problem: Problem, module: nn.Module) -> dict[str, tuple[float, KernelSpec]]:
    """Median time and kernel, by its name, of all that can run a layer."""
    layers = {
        kernel.name: SwappedLayer.of(module, replace(problem, dtype=kernel.dtype), kernel, relu=False)
        for kernel in eligible(problem, detect_machine(), REGISTRY)
        if problem.pattern != DENSE.text or "dense" in kernel.patterns
    }
    x = torch.randn(problem.input_shape)
    calls: list[Callable[[], Tensor]] = [
        partial(layer.run, x.to(TORCH_DTYPES[problem.dtype]).contiguous(memory_format=layer.memory_format))
        for layer in layers.values()
    ]
    with torch.inference_mode():
        times = HOST.kernels(calls, budget_s=LAYER_BUDGET_S)
    return {name: (time.median, layers[name].kernel) for name, time in zip(layers, times, strict=True)}
