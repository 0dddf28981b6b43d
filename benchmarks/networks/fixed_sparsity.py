"""resnet50 at one sparsity on every layer where it pays, against the best dense way to run it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.dense import TORCH_DTYPES
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Dtype, Problem
from sparseplan.kernels.registry import REGISTRY, kernel_named
from sparseplan.kernels.spec import KernelSpec, Machine
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
    """
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    machine = detect_machine()
    model = load_model("zoo:resnet50").eval()
    example = torch.randn(case.batch, 3, 224, 224)
    layers = {layer.name: replace(layer.problem, threads=THREADS) for layer in capture(model, example).layers}
    kernels = {problem: _winner(problem, case, machine) for problem in dict.fromkeys(layers.values())}
    chosen = {name: (problem, kernels[problem]) for name, problem in layers.items()}
    pruned = _pruned(model, chosen, case)
    fused = fuse(pruned, example)
    swap_layers(
        fused,
        {
            name: (replace(problem.with_sparsity(case.pattern, case.sparsity), dtype=case.dtype), kernel)
            for name, (problem, kernel) in chosen.items()
            if kernel is not None
        },
    )
    dtype = TORCH_DTYPES[case.dtype]
    networks = [fuse(model).model.to(dtype), fused.model.requires_grad_(False).to(dtype)]
    calls = [host_call(network, example.to(dtype), host=host) for network in networks for host in HOSTS]
    medians = [time_s.median for time_s in measure_alternating(calls, budget_s=NETWORKS_S, turn=NETWORK_TURN)]
    return (
        min(medians[: len(HOSTS)]),
        min(medians[len(HOSTS) :]),
        sum(kernel is not None for _, kernel in chosen.values()),
    )


def _winner(problem: Problem, case: FixedCase, machine: Machine) -> KernelSpec | None:
    """The fastest sparse kernel of a layer, None where a dense one is faster."""
    generator = torch.Generator().manual_seed(0)
    dense = replace(problem, dtype=case.dtype)
    sparse = replace(problem.with_sparsity(case.pattern, case.sparsity), dtype=case.dtype)
    best: dict[Problem, tuple[float, str]] = {}
    for each in (dense, sparse):
        found = kernels_to_time(each, machine, REGISTRY, every_isa=False)
        times = sample_kernels(each, found, generator=generator, budget_s=LAYER_S)
        best[each] = min(((sample.time_s.median, sample.kernel) for sample in times), default=(float("inf"), ""))
    return kernel_named(best[sparse][1]) if best[sparse][0] < best[dense][0] else None


def _pruned(model: nn.Module, chosen: dict[str, tuple[Problem, KernelSpec | None]], case: FixedCase) -> nn.Module:
    pattern = parse_pattern(case.pattern)
    pruned = load_model("zoo:resnet50").eval()
    pruned.load_state_dict(model.state_dict())
    with torch.no_grad():
        for name, (_, kernel) in chosen.items():
            if kernel is not None:
                weight = weight_view(pruned.get_submodule(name))
                weight.mul_(magnitude_mask(weight, pattern, case.sparsity))
    return pruned
