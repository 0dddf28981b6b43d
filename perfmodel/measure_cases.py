"""Measure fresh problems: each under its sparse kernels and their dense rivals, in alternation."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.spec import KernelSpec, Machine
from ..profiles.profile_machine import expected_time_s
from ..profiles.sample_kernels import kernels_to_time, pooled_sample, sample_on
from ..profiles.schema import KernelSample
from ..profiles.stopwatch import HOST, Stopwatch
from .judge import Case

TAKES = 3
"""Times each problem is measured, with fresh memory and minutes in between: a median moves by 5 % from one take to the
next (half of 503 did, two virtual cores), which would be blamed on the predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    problem: Problem
    kernels: tuple[KernelSpec, ...]
    dense: frozenset[str]


def measure_cases(
    problems: Iterable[Problem],
    *,
    machine: Machine,
    registry: tuple[KernelSpec, ...],
    seed: int,
    budget_s: float,
    problem_s: float,
    watch: Stopwatch = HOST,
    progress: Progress = silent,
) -> tuple[Case, ...]:
    """Measure problems until they or a third of the budget end, then all of these twice again.

    Those that would not fit into what is left are skipped.

    Parameters
    ----------
    problems : iterable of Problem
        May be endless.
    budget_s, problem_s : float
        Wall-clock time for all, and for the timings of one.
    watch : Stopwatch
        Of the machine's device.
    """
    generator = torch.Generator(device=watch.device).manual_seed(seed)
    begin_s = time.perf_counter()
    takes: dict[_Work, list[tuple[KernelSample, ...]]] = {}

    def take(work: _Work) -> None:
        torch.set_num_threads(work.problem.threads)
        samples = sample_on(watch, work.problem, work.kernels, generator=generator, budget_s=problem_s / TAKES)
        if samples:
            takes.setdefault(work, []).append(samples)
        progress("measuring fresh problems", min(time.perf_counter() - begin_s, budget_s), budget_s)

    threads_before = torch.get_num_threads()
    try:
        for problem in problems:
            left_s = budget_s / TAKES - (time.perf_counter() - begin_s)
            if left_s <= 0.0:
                break
            work = _work(problem, machine, registry)
            if work is not None and expected_time_s(problem, len(work.kernels), machine.device) <= left_s:
                take(work)
        for work in (TAKES - 1) * tuple(takes):
            take(work)
    finally:
        torch.set_num_threads(threads_before)
    progress("measuring fresh problems", budget_s, budget_s)
    return tuple(
        Case(
            problem=work.problem,
            samples=tuple(pooled_sample(samples) for samples in zip(*found, strict=True)),
            dense=work.dense,
            takes=tuple(found),
        )
        for work, found in takes.items()
    )


def _work(problem: Problem, machine: Machine, registry: tuple[KernelSpec, ...]) -> _Work | None:
    """The kernels to time on a problem, or None where none skips its zeros."""
    dense = kernels_to_time(problem.as_dense(), machine, registry, every_isa=False)
    sparse = kernels_to_time(problem, machine, registry, every_isa=False)
    if not sparse:
        return None
    kernels = tuple(dict.fromkeys((*sparse, *dense)))
    return _Work(problem=problem, kernels=kernels, dense=frozenset(kernel.name for kernel in dense))
