"""resnet50 at one sparsity on every layer where it pays, against the best dense way to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.dense import TORCH_DTYPES
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.layout import BLOCK_IMAGES, MEMORY_FORMATS
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Dtype, Problem
from sparseplan.kernels.registry import REGISTRY, kernel_named
from sparseplan.kernels.select import why_ineligible
from sparseplan.kernels.spec import KernelSpec, Layout, Machine
from sparseplan.kernels.weight_view import weight_view
from sparseplan.model_spec import load_model
from sparseplan.planner.capture import capture
from sparseplan.profiles.sample_kernels import kernels_to_time, sample_kernels
from sparseplan.profiles.timing import NETWORK_TURN, measure_alternating
from sparseplan.runtime.fuse import fuse
from sparseplan.runtime.hosts import HOSTS, host_call
from sparseplan.runtime.swap import swap_layers

THREADS = 2
LAYER_S = 0.3
"""For timing all kernels of one kind of layer."""
NETWORKS_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedCase:
    """One pattern and sparsity at one batch size."""

    name: str
    batch: int
    pattern: str
    sparsity: float
    dtype: Dtype
    goal_speedup: float


FIXED_CASES = {
    case.name: case
    for case in (
        FixedCase(
            name=f"resnet50-{label}-b{batch}",
            batch=batch,
            pattern=pattern,
            sparsity=sparsity,
            dtype=dtype,
            goal_speedup=goal,
        )
        for label, pattern, sparsity, dtype, goals in (
            ("unstructured90-float32", "unstructured", 0.9, "float32", {1: 2.2, 16: 4.2}),
            ("block16x32-75-bfloat16", "block:16x32", 0.75, "bfloat16", {1: 1.8, 16: 1.8}),
        )
        for batch, goal in goals.items()
    )
}


def measure_fixed(case: FixedCase) -> tuple[float, float, int]:
    """Dense and sparse network's time in seconds, each under its best host, in alternation; and the layers swapped.

    Weights are random and pruned by magnitude: times depend on where the zeros are, not on what the network has learnt.
    One sparse network is built for each layout of activations, with the fastest kernels of that layout, as kernels that
    are fastest by themselves in different layouts convert more than they save; the fastest network counts.
    """
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    machine = detect_machine()
    model = load_model("zoo:resnet50").eval()
    example = torch.randn(case.batch, 3, 224, 224)
    layers = {layer.name: replace(layer.problem, threads=THREADS) for layer in capture(model, example).layers}
    timed = {problem: _time_kernels(problem, case, machine) for problem in dict.fromkeys(layers.values())}
    dtype = TORCH_DTYPES[case.dtype]
    calls = {"dense": _host_calls(fuse(model).model.to(dtype), example.to(dtype))}
    swapped: dict[str, int] = {}
    for layout in (*MEMORY_FORMATS, *BLOCK_IMAGES):
        chosen = {
            name: (replace(problem.with_sparsity(case.pattern, case.sparsity), dtype=case.dtype), kernel)
            for name, problem in layers.items()
            if (kernel := timed[problem].winner(layout)) is not None
        }
        if any(kernel.layout == layout for _, kernel in chosen.values()):
            fused = fuse(_pruned(model, chosen), example)
            swap_layers(fused, chosen)
            calls[layout] = _host_calls(fused.model.requires_grad_(False).to(dtype), example.to(dtype))
            swapped[layout] = len(chosen)
    every = [call for found in calls.values() for call in found]
    medians = iter(measure_alternating(every, budget_s=NETWORKS_S, turn=NETWORK_TURN))
    best = {name: min(next(medians).median for _ in found) for name, found in calls.items()}
    fastest = min(swapped, key=lambda name: best[name], default="dense")
    return best["dense"], best[fastest], swapped.get(fastest, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A layer densely and with its zeros: kernels by name, seconds."""

    dense_s: float
    sparse_s: dict[str, float]

    def winner(self, layout: Layout) -> KernelSpec | None:
        """The fastest sparse kernel of a layout (linears have none of their own), None where dense is faster."""
        found = {name: time_s for name, time_s in self.sparse_s.items() if _fits(kernel_named(name), layout)}
        best = min(found, key=lambda name: found[name], default=None)
        return kernel_named(best) if best is not None and found[best] < self.dense_s else None


def _fits(kernel: KernelSpec, layout: Layout) -> bool:
    return kernel.op == "linear" or kernel.layout == layout


def _time_kernels(problem: Problem, case: FixedCase, machine: Machine) -> Timed:
    generator = torch.Generator().manual_seed(0)
    dense = replace(problem, dtype=case.dtype)
    sparse = replace(problem.with_sparsity(case.pattern, case.sparsity), dtype=case.dtype)
    found = kernels_to_time(sparse, machine, REGISTRY, every_isa=False)
    blocked = tuple(
        kernel
        for kernel in REGISTRY
        if kernel.layout in BLOCK_IMAGES
        and kernel.isa in {other.isa for other in found}
        and why_ineligible(kernel, sparse, machine) is None
    )
    dense_s, sparse_s = (
        {
            sample.kernel: sample.time_s.median
            for sample in sample_kernels(each, kernels, generator=generator, budget_s=LAYER_S)
        }
        for each, kernels in (
            (dense, kernels_to_time(dense, machine, REGISTRY, every_isa=False)),
            (sparse, (*found, *blocked)),
        )
    )
    return Timed(dense_s=min(dense_s.values()), sparse_s=sparse_s)


def _host_calls(network: nn.Module, example: Tensor) -> list[Callable[[], Tensor]]:
    return [host_call(network, example, host=host) for host in HOSTS]


def _pruned(model: nn.Module, chosen: dict[str, tuple[Problem, KernelSpec]]) -> nn.Module:
    pruned = load_model("zoo:resnet50").eval()
    pruned.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, (problem, _) in chosen.items():
            weight = weight_view(pruned.get_submodule(name))
            weight.mul_(magnitude_mask(weight, parse_pattern(problem.pattern), problem.sparsity))
    return pruned
