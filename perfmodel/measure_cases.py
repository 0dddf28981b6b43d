"""Measure fresh problems: each under its sparse kernels and their dense rivals, in alternation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch

from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.spec import KernelSpec, Machine
from ..profiles.profile_machine import expected_time_s
from ..profiles.sample_kernels import kernels_to_time, sample_kernels
from .judge import Case


def measure_cases(
    problems: Iterable[Problem],
    *,
    machine: Machine,
    registry: tuple[KernelSpec, ...],
    seed: int,
    budget_s: float,
    problem_s: float,
    progress: Progress = silent,
) -> Iterator[Case]:
    """Measure problems until they or the budget end; those that would not fit into what is left are skipped.

    Parameters
    ----------
    problems : iterable of Problem
        May be endless.
    budget_s, problem_s : float
        Wall-clock time for all, and for the timings of one.
    """
    generator = torch.Generator().manual_seed(seed)
    begin_s = time.perf_counter()
    threads_before = torch.get_num_threads()
    try:
        for problem in problems:
            spent_s = time.perf_counter() - begin_s
            if spent_s >= budget_s:
                break
            dense = kernels_to_time(problem.as_dense(), machine, registry, every_isa=False)
            sparse = kernels_to_time(problem, machine, registry, every_isa=False)
            kernels = tuple(dict.fromkeys((*sparse, *dense)))
            if not sparse or expected_time_s(problem, len(kernels)) > budget_s - spent_s:
                continue
            torch.set_num_threads(problem.threads)
            yield Case(
                problem=problem,
                samples=sample_kernels(problem, kernels, generator=generator, budget_s=problem_s),
                dense=frozenset(kernel.name for kernel in dense),
            )
            progress("measuring fresh problems", min(time.perf_counter() - begin_s, budget_s), budget_s)
    finally:
        torch.set_num_threads(threads_before)
    progress("measuring fresh problems", budget_s, budget_s)
