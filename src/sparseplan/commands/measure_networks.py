"""Whole dense networks for a machine profile: what a network adds to its layers is fitted to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.progress import Progress
from ..kernels.registry import REGISTRY
from ..kernels.spec import Machine
from ..model_spec import load_model
from ..perfmodel.fit import fit_performance_model
from ..planner.capture import Captured, capture
from ..planner.example import random_example
from ..planner.kernel_times import touched_bytes
from ..planner.make_plan import for_threads, machinery_of
from ..planner.options import Machinery
from ..planner.time_options import time_options
from ..profiles.schema import Budget, MachineProfile, NetworkLayer, NetworkOperation, NetworkSample
from ..profiles.stopwatch import HOST, Stopwatch
from ..profiles.timing import TimeStats, pool
from ..runtime.fuse import fuse
from ..runtime.hosts import network_calls
from ..runtime.schema import Host

NETWORKS = (
    ("zoo:resnet56", (1, 3, 32, 32)),
    ("zoo:convnet", (1, 3, 32, 32)),
    ("zoo:resnet50", (1, 3, 224, 224)),
    ("zoo:convnet", (64, 3, 32, 32)),
    ("zoo:resnet56", (16, 3, 32, 32)),
)
"""Many calls and few, weights beyond the caches, large activations: each term weighs most in one of them. Validation
holds others out."""
BUDGET_S: dict[Budget, float] = {"quick": 8.0, "standard": 25.0, "full": 40.0}
"""Of wall-clock time, most of it for compilation (1 to 4 s a network)."""
COMPILED: tuple[Host, ...] = ("compile",)
GPU_COMPILED: tuple[Host, ...] = ("compile", "compile_graph")
TAKES = 2
TAKE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    spec: str
    shape: tuple[int, ...]
    captured: Captured
    call: Callable[[], Tensor]


def measure_networks(
    profile: MachineProfile, *, machine: Machine, watch: Stopwatch = HOST, progress: Progress
) -> tuple[NetworkSample, ...]:
    """Time as many of `NETWORKS` as fit into the budget of a profile, as torch compiles them, each twice.

    On a GPU the compiled network is replayed as a CUDA graph.
    """
    until_s = time.perf_counter() + BUDGET_S[profile.budget]
    model = fit_performance_model(profile, REGISTRY)
    machinery = machinery_of(profile, model, machine=machine, registry=REGISTRY)
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(profile.threads)
        ready: list[_Ready] = []
        for number, (spec, shape) in enumerate(NETWORKS):
            if time.perf_counter() > until_s - TAKES * TAKE_S * (len(ready) + 1):
                break
            progress("measuring networks", number, len(NETWORKS))
            with watch.settings():
                ready.append(_prepare(spec, shape, profile.threads, watch))
        takes = [[watch.networks([each.call], budget_s=TAKE_S)[0] for each in ready] for _ in range(TAKES)]
    finally:
        torch.set_num_threads(threads_before)
    progress("measuring networks", 1, 1)
    return tuple(
        _sample(each, pool(times), machinery) for each, times in zip(ready, zip(*takes, strict=True), strict=True)
    )


def _prepare(spec: str, shape: tuple[int, ...], threads: int, watch: Stopwatch) -> _Ready:
    model = load_model(spec).eval()
    example = random_example(model, shape)
    calls = network_calls(fuse(model).model, example, COMPILED if watch.gpu is None else GPU_COMPILED, watch)
    return _Ready(
        spec=spec,
        shape=shape,
        captured=for_threads(capture(model, example), threads),
        # The last way is the fastest: what can be recorded comes behind what can only be launched.
        call=list(calls.values())[-1],
    )


def _sample(ready: _Ready, time_s: TimeStats, machinery: Machinery) -> NetworkSample:
    captured = ready.captured
    timed = time_options(captured.layers, (), dtype_policy="float32", machinery=machinery)
    return NetworkSample(
        model=ready.spec,
        input_shape=ready.shape,
        layers=tuple(
            NetworkLayer(problem=each.dense.problem, kernel=each.dense.kernel, calls=each.layer.calls)
            for each in timed.layers
        ),
        between=tuple(
            NetworkOperation(operation=each.operation, bytes_moved=each.bytes_moved) for each in captured.rest
        ),
        touched_bytes=touched_bytes(captured.layers),
        time_s=time_s,
    )
