"""Measure a GPU: identity, ceilings, every kernel on a spread of problems, and what lies between the layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.spec import KernelSpec, Machine
from .cuda_ceilings import Workload, measure_cuda_ceilings, workload_of
from .cuda_timing import Gpu
from .gpu_spread import gpu_problems
from .measure_elementwise import OPERATIONS, SIZES_BYTES, measure_elementwise
from .plausible import require_measured
from .sample_kernels import kernels_to_time, sample_on
from .schema import Budget, ElementwiseSample, Fingerprint, KernelSample, MachineProfile, StabilitySample
from .stopwatch import Stopwatch, gpu_stopwatch

SEED = 0
TOTAL_S: dict[Budget, float] = {"quick": 35.0, "standard": 235.0, "full": 1680.0}
"""Totals of 60 s, 5 min and 30 min, less what whole networks, starting up and the last problem may take."""
PROBLEM_S = 0.05
"""Most time for the samples of one problem; compiling its kernels and choosing their algorithms comes on top."""
ELEMENTWISE_S = 0.01
"""For each operation at each size."""
WATCH_EVERY_S = 5.0
WATCHED = 4096
"""Rows of the product that is timed again and again to see whether the GPU drifts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBench:
    """The device that is measured, and its events and graphs.

    Attributes
    ----------
    fingerprint : Fingerprint
        With the identity of the GPU.
    workload : Workload or None
        Of the ceilings; that of the GPU's cache when None.
    """

    device: torch.device
    gpu: Gpu
    fingerprint: Fingerprint
    workload: Workload | None = None


def profile_gpu(
    budget: Budget,
    *,
    machine: Machine,
    registry: Sequence[KernelSpec],
    bench: GpuBench,
    problems: Sequence[Problem] | None = None,
    total_s: float | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
) -> MachineProfile:
    """Measure a GPU within a budget of wall-clock time.

    Parameters
    ----------
    problems : sequence of Problem or None
        In this order; those of `gpu_problems` when None.
    total_s : float or None
        Another limit than the budget's.

    Raises
    ------
    UnsupportedError
        If the ceilings come out absurd.
    """
    start_s = clock()
    until_s = start_s + (TOTAL_S[budget] if total_s is None else total_s)
    identity = bench.fingerprint.gpu
    progress("measuring ceilings", 0, 1)
    workload = bench.workload or workload_of(0 if identity is None else identity.l2_bytes)
    ceilings = measure_cuda_ceilings(bench.device, bench.gpu, workload=workload)
    require_measured(ceilings)
    watch = gpu_stopwatch(bench.device, bench.gpu)
    elementwise = _elementwise(watch)
    generator = torch.Generator(device=bench.device).manual_seed(SEED)
    samples: list[KernelSample] = []
    stability: list[StabilitySample] = []
    watched_s = -WATCH_EVERY_S
    for problem in gpu_problems(budget) if problems is None else problems:
        now_s = clock()
        if now_s >= until_s:
            break
        progress("measuring kernels", now_s - start_s, until_s - start_s)
        kernels = kernels_to_time(problem, machine, registry, every_isa=False)
        samples += sample_on(watch, problem, kernels, generator=generator, budget_s=PROBLEM_S)
        if now_s - watched_s >= WATCH_EVERY_S:
            watched_s = now_s
            stability.append(_watched(bench, watch, now_s - start_s, generator))
    return MachineProfile(
        created=datetime.now(UTC),
        device="cuda",
        budget=budget,
        threads=1,
        fingerprint=bench.fingerprint,
        ceilings=ceilings,
        samples=tuple(samples),
        elementwise=elementwise,
        networks=(),
        stability=tuple(stability),
        duration_s=clock() - start_s,
    )


def _elementwise(watch: Stopwatch) -> tuple[ElementwiseSample, ...]:
    return tuple(
        measure_elementwise(
            threads=1,
            budget_s=ELEMENTWISE_S * len(OPERATIONS) * len(SIZES_BYTES),
            sizes_bytes=SIZES_BYTES,
            device=watch.device,
            timer=watch.kernels,
        )
    )


def _watched(bench: GpuBench, watch: Stopwatch, at_s: float, generator: torch.Generator) -> StabilitySample:
    size = min(WATCHED, (bench.workload or Workload()).matrix)
    x = torch.randn(size, size, generator=generator, device=bench.device).to(torch.bfloat16)
    (time_s,) = watch.kernels([lambda: torch.matmul(x, x)], budget_s=0.02)
    return StabilitySample(at_s=at_s, flop_per_s=2.0 * size**3 / time_s.median)
