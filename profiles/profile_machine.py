"""Measure this machine: identity, ceilings, every kernel on a spread of problems, and what lies between the layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from ..kernels import _native
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.spec import KernelSpec, Machine
from .ceilings import Probes, measure_ceilings
from .fingerprint import read_fingerprint
from .measure_elementwise import OPERATIONS, SIZES_BYTES, measure_elementwise
from .sample_kernels import kernels_to_time, sample_kernels
from .schema import Budget, ElementwiseSample, KernelSample, MachineProfile
from .spread import spread_problems

SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeTable:
    """How a budget of wall-clock time is spent, in seconds, and how large element-wise operations are (bytes)."""

    total_s: float
    elementwise_s: float
    elementwise_sizes: tuple[int, ...]
    problem_s: float


TIME_TABLES: dict[Budget, TimeTable] = {
    "quick": TimeTable(total_s=56.0, elementwise_s=6.0, elementwise_sizes=SIZES_BYTES[:-1], problem_s=0.1),
    "standard": TimeTable(total_s=285.0, elementwise_s=12.0, elementwise_sizes=SIZES_BYTES, problem_s=0.2),
    "full": TimeTable(total_s=1740.0, elementwise_s=40.0, elementwise_sizes=SIZES_BYTES, problem_s=0.5),
}
"""Totals of 60 s, 5 min and 30 min, less what starting up and the last problem may take."""

LESSER_ISA_EVERY = 7
CALLS_AT_LEAST = 10
"""Runs of each kernel that a measurement takes whatever its budget."""
SLOW_FLOP_PER_S = 5e9
"""Of one thread of a slow kernel, to foresee whether a problem still fits (assumed)."""


def profile_machine(
    *,
    budget: Budget,
    threads: int,
    machine: Machine,
    registry: tuple[KernelSpec, ...],
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
    probes: Probes = _native,
) -> MachineProfile:
    """Measure this machine within a budget of wall-clock time.

    An interrupt ends it without a result.

    Parameters
    ----------
    budget : {"quick", "standard", "full"}
        At most 60 s, 5 min, 30 min.
    threads : int
        Threads that kernels use; some problems are measured on one thread too.
    clock : callable
        Seconds since some moment.
    probes : Probes
        What measures the ceilings.

    Raises
    ------
    UnsupportedError
        If the ceilings come out absurd.
    """
    table = TIME_TABLES[budget]
    start_s = clock()
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        fingerprint = read_fingerprint(machine)
        progress("measuring ceilings", 0, 1)
        ceilings = measure_ceilings(fingerprint, probes, threads=threads)
        progress("measuring ceilings", 1, 1)
        elementwise = _elementwise(threads, table, progress)
        samples = tuple(
            _samples(
                _runnable(spread_problems(budget, threads), machine, registry),
                table=table,
                until_s=start_s + table.total_s,
                progress=progress,
                clock=clock,
            )
        )
    finally:
        torch.set_num_threads(threads_before)
    return MachineProfile(
        created=datetime.now(UTC),
        budget=budget,
        threads=threads,
        fingerprint=fingerprint,
        ceilings=ceilings,
        samples=samples,
        elementwise=elementwise,
        duration_s=clock() - start_s,
    )


def _elementwise(threads: int, table: TimeTable, progress: Progress) -> tuple[ElementwiseSample, ...]:
    samples: list[ElementwiseSample] = []
    sizes = table.elementwise_sizes
    total = len(OPERATIONS) * len(sizes)
    for sample in measure_elementwise(threads=threads, budget_s=table.elementwise_s, sizes_bytes=sizes):
        samples.append(sample)
        progress("measuring element-wise operations", len(samples), total)
    return tuple(samples)


def _runnable(
    problems: Sequence[Problem], machine: Machine, registry: tuple[KernelSpec, ...]
) -> Iterator[tuple[Problem, tuple[KernelSpec, ...]]]:
    """Problems with the kernels to time on them.

    Kernels of lesser instruction sets than the best one come on a few problems only: they matter to who forces them,
    and they are slow.
    """
    numbered = 0
    for problem in problems:
        kernels = kernels_to_time(problem, machine, registry, every_isa=numbered % LESSER_ISA_EVERY == 0)
        if kernels:
            numbered += 1
            yield problem, kernels


def _samples(
    work: Iterator[tuple[Problem, tuple[KernelSpec, ...]]],
    *,
    table: TimeTable,
    until_s: float,
    progress: Progress,
    clock: Callable[[], float],
) -> Iterator[KernelSample]:
    generator = torch.Generator().manual_seed(SEED)
    begin_s = clock()
    for problem, kernels in work:
        left_s = until_s - clock()
        if left_s < table.problem_s:
            break
        if expected_time_s(problem, len(kernels)) > left_s:
            continue
        torch.set_num_threads(problem.threads)
        yield from sample_kernels(problem, kernels, generator=generator, budget_s=table.problem_s)
        progress("measuring kernels", min(clock(), until_s) - begin_s, until_s - begin_s)
    progress("measuring kernels", until_s - begin_s, until_s - begin_s)


def expected_time_s(problem: Problem, kernels: int) -> float:
    """What measuring so many kernels on a problem may take at least, in seconds."""
    return CALLS_AT_LEAST * kernels * problem.flop_dense_equiv / (SLOW_FLOP_PER_S * problem.threads)
