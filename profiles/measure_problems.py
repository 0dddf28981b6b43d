"""Time kernels on given problems, each after its result was checked against the reference."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..kernels.inputs import LayerInputs, random_inputs
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.reference import error_limit, relative_error
from ..kernels.registry import kernel_named
from ..kernels.reorder import from_layout
from ..kernels.select import NoKernel, eligible, select, why_ineligible
from ..kernels.spec import KernelSpec, Machine
from ..kernels.weights import flop_useful_of, make_weight, with_actual_sparsity
from .measure_schema import MeasureRecord
from .stopwatch import HOST, Stopwatch

BUDGET_S = 1.0
"""Time for the samples of one kernel on one problem."""
SEED = 0
"""Of the random inputs and weights: two runs measure the same numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A packed kernel and how far its result lies from the reference."""

    kernel: KernelSpec
    call: Callable[[], object]
    pack_time_s: float
    max_abs_error: float | None
    rel_error: float | None
    reason: str | None


def measure_problems(
    problems: Sequence[Problem],
    *,
    kernel: Literal["auto", "all"] | str = "auto",
    machine: Machine,
    registry: Sequence[KernelSpec],
    folder: Path | None = None,
    threads: int | None = None,
    watch: Stopwatch = HOST,
    progress: Progress = silent,
) -> Iterator[MeasureRecord]:
    """Measure each problem; all kernels of one problem are timed in alternation.

    Parameters
    ----------
    kernel : str
        ``auto`` (the one that select() picks), ``all`` that are eligible, or the name of one.
    folder : Path or None
        What relative names of weight files start from.
    threads : int or None
        Overrides the thread count of every problem.
    watch : Stopwatch
        Of the machine's device.

    Yields
    ------
    MeasureRecord
        One a problem and kernel; a problem that cannot be run yields one with the reason.

    Raises
    ------
    InputError
        If there is no kernel of that name, or a file of weights is missing or does not fit.
    """
    named = None if kernel in ("auto", "all") else kernel_named(kernel, registry)
    for number, given in enumerate(problems):
        progress("measure", number, len(problems))
        problem = given if threads is None else replace(given, threads=threads)
        generator = torch.Generator(device=watch.device).manual_seed(SEED)
        if reason := _why_not(problem, named, machine, registry):
            yield _no_time(problem, None if named is None else named.name, reason)
            continue
        with watch.device:
            weight = make_weight(problem, generator, folder=folder).to(watch.device)
        problem = with_actual_sparsity(problem, weight)
        rivals: tuple[KernelSpec, ...]
        if named is not None:
            rivals = (named,)
        elif kernel == "all":
            rivals = eligible(problem, machine, registry)
        else:
            rivals = tuple(choice for choice in [select(problem, machine, registry)] if isinstance(choice, KernelSpec))
        yield from measure_rivals(
            problem, rivals, weight=weight, generator=generator, budget_s=BUDGET_S * len(rivals), watch=watch
        )
    progress("measure", len(problems), len(problems))


def measure_problem(
    problem: Problem,
    kernel: KernelSpec,
    *,
    machine: Machine,
    folder: Path | None,
    generator: torch.Generator,
    budget_s: float,
) -> MeasureRecord:
    """Measure one kernel on one problem; see `measure_problems`."""
    if reason := _why_not(problem, kernel, machine, (kernel,)):
        return _no_time(problem, kernel.name, reason)
    weight = make_weight(problem, generator, folder=folder)
    problem = with_actual_sparsity(problem, weight)
    return measure_rivals(problem, (kernel,), weight=weight, generator=generator, budget_s=budget_s)[0]


def measure_rivals(
    problem: Problem,
    kernels: Sequence[KernelSpec],
    *,
    weight: Tensor,
    generator: torch.Generator,
    budget_s: float,
    watch: Stopwatch = HOST,
) -> tuple[MeasureRecord, ...]:
    """Check eligible kernels on one weight, then time those that are right, in alternation.

    Parameters
    ----------
    weight : Tensor
        float32, [K, C, R, S], with the zeros of the problem's pattern.
    generator : torch.Generator
        Source of the random input and bias.
    budget_s : float
        For all kernels together, in seconds.
    watch : Stopwatch
        Of the device of `weight` and `generator`.
    """
    with watch.device:
        inputs = random_inputs(problem, weight, generator)
    expected = inputs.expected()
    with torch.inference_mode(), torch_threads(problem.threads):
        checked = [check_kernel(kernel, inputs, expected) for kernel in kernels]
        right = [rival for rival in checked if rival.reason is None]
        times = watch.kernels([rival.call for rival in right], budget_s=budget_s) if right else ()
    time_of = {rival.kernel.name: stats for rival, stats in zip(right, times, strict=True)}
    return tuple(
        MeasureRecord(
            problem=problem,
            kernel=rival.kernel.name,
            time_s=time_of.get(rival.kernel.name),
            pack_time_s=rival.pack_time_s,
            flop_useful=flop_useful_of(problem, inputs.weight),
            flop_dense_equiv=problem.flop_dense_equiv,
            max_abs_error=rival.max_abs_error,
            rel_error=rival.rel_error,
            reason=rival.reason,
        )
        for rival in checked
    )


def _why_not(
    problem: Problem, named: KernelSpec | None, machine: Machine, registry: Sequence[KernelSpec]
) -> str | None:
    usable = len(os.sched_getaffinity(0))
    if problem.threads > usable:
        return f"the problem asks for {problem.threads} threads, this process may use {usable} cores"
    if named is not None:
        return why_ineligible(named, problem, machine)
    choice = select(problem, machine, registry)
    return choice.message if isinstance(choice, NoKernel) else None


def _no_time(problem: Problem, kernel: str | None, reason: str) -> MeasureRecord:
    return MeasureRecord(
        problem=problem,
        kernel=kernel,
        time_s=None,
        pack_time_s=None,
        flop_useful=problem.flop_useful,
        flop_dense_equiv=problem.flop_dense_equiv,
        max_abs_error=None,
        rel_error=None,
        reason=reason,
    )


def check_kernel(kernel: KernelSpec, inputs: LayerInputs, expected: Tensor) -> Checked:
    """Pack a kernel, run it once and compare with the right answer."""
    start = time.perf_counter()
    packed: Any = inputs.pack(kernel)
    pack_time_s = time.perf_counter() - start
    x = inputs.x_for(kernel)
    y = from_layout(kernel.run(packed, x), kernel.layout, inputs.problem.n)
    error, limit = relative_error(y, expected), error_limit(inputs.problem)
    absolute = float((y.double() - expected).abs().max())
    return Checked(
        kernel=kernel,
        call=partial(kernel.run, packed, x),
        pack_time_s=pack_time_s,
        max_abs_error=absolute if math.isfinite(error) else None,
        rel_error=error if math.isfinite(error) else None,
        reason=None if error <= limit else f"wrong result: relative error {error:.2g}, the limit is {limit:.2g}",
    )


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch, and with it the native kernels, use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
