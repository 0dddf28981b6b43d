"""Extend a profile: measure the very layers of a model, so that plans for it rest on measurements."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

import torch

from ..kernels.errors import InputError
from ..kernels.pattern import parse_pattern
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.spec import KernelSpec, Machine
from .measure_elementwise import SIZES_BYTES, measure_elementwise
from .measure_problems import torch_threads
from .sample_kernels import kernels_to_time, pooled_sample, sample_on
from .schema import ElementwiseSample, KernelSample, MachineProfile
from .stopwatch import HOST, Stopwatch
from .timing import pool

Work = tuple[Problem, str]
"""A problem and the name of a kernel."""

SEED = 1
PASSES = 3
"""Times each problem and operation is measured, with fresh memory and some time in between: see `timing.pool`."""
ELEMENTWISE_S = 0.2
"""For all operations between layers at one size of activations, in one pass."""
PROBLEM_S = 0.2
"""Most time for all kernels of one problem in one pass; quiet ones are done sooner."""
LEVELS = {"unstructured": (0.5, 0.7, 0.82, 0.9, 0.95, 0.98), "block": (0.5, 0.7, 0.82, 0.9, 0.95)}
STRUCTURED_LEVELS = (0.25, 0.5, 0.75)
"""Sparsities measured on every layer; the model interpolates between them."""


def layer_problems(layers: Sequence[Problem], patterns: Sequence[str]) -> tuple[Problem, ...]:
    """What to measure of dense layers: each different one once, densely and under every pattern at a few sparsities."""
    problems: list[Problem] = []
    for layer in dict.fromkeys(layers):
        problems.append(layer)
        for pattern in patterns:
            fixed = parse_pattern(pattern).fixed_sparsity
            levels = LEVELS.get(pattern.split(":")[0], STRUCTURED_LEVELS) if fixed is None else (fixed,)
            problems += [layer.with_sparsity(pattern, level) for level in levels]
    return tuple(problems)


def extend_profile(
    profile: MachineProfile,
    problems: Sequence[Problem],
    *,
    machine: Machine,
    registry: Sequence[KernelSpec],
    watch: Stopwatch = HOST,
    progress: Progress = silent,
) -> MachineProfile:
    """Measure problems on this machine, and operations on activations of their sizes, and add them to its profile.

    An older sample of the same work is replaced. All is measured in passes far apart, and the middle one counts: the
    model takes measured layers and operations by their word, and one disturbed second must not become many of a
    network's.

    Parameters
    ----------
    profile : MachineProfile
        Of this very machine; see `fingerprint.differences`.
    problems : sequence of Problem
        At the profile's thread count.
    watch : Stopwatch
        Of the machine's device.

    Raises
    ------
    InputError
        If a problem is for another number of threads.
    """
    others = {problem.threads for problem in problems} - {profile.threads}
    if others:
        raise InputError(
            f"the problems are for {', '.join(map(str, sorted(others)))} threads, the profile is of {profile.threads}; "
            "give a profile of as many threads"
        )
    if not problems:
        return profile
    start_s = time.perf_counter()
    generator = torch.Generator(device=watch.device).manual_seed(SEED)
    takes: dict[Work, list[KernelSample]] = defaultdict(list)
    between: dict[tuple[str, float], list[ElementwiseSample]] = defaultdict(list)
    sizes = sorted({max(size, SIZES_BYTES[0]) for problem in problems for size in _activation_bytes(problem)})
    with torch_threads(profile.threads):
        for number in range(PASSES):
            for done, problem in enumerate(problems, start=number * len(problems)):
                progress("measuring the model's layers", done, PASSES * len(problems))
                kernels = kernels_to_time(problem, machine, registry, every_isa=False)
                for sample in sample_on(watch, problem, kernels, generator=generator, budget_s=PROBLEM_S):
                    takes[problem, sample.kernel].append(sample)
            for each in measure_elementwise(
                threads=profile.threads,
                budget_s=ELEMENTWISE_S * len(sizes),
                sizes_bytes=sizes,
                device=watch.device,
                timer=watch.kernels,
            ):
                between[each.operation, each.bytes_moved].append(each)
    progress("measuring the model's layers", 1, 1)
    kept = tuple(sample for sample in profile.samples if (sample.problem, sample.kernel) not in takes)
    added = tuple(pooled_sample(samples) for samples in takes.values())
    elementwise = tuple(
        found[0].model_copy(update={"time_s": pool([each.time_s for each in found])}) for found in between.values()
    )
    return profile.model_copy(
        update={
            "samples": kept + added,
            "elementwise": _others(profile.elementwise, elementwise) + elementwise,
            "duration_s": profile.duration_s + time.perf_counter() - start_s,
        }
    )


def _activation_bytes(problem: Problem) -> tuple[int, int]:
    return int(problem.input_bytes), int(problem.output_bytes)


def _others(
    before: Sequence[ElementwiseSample], measured: Sequence[ElementwiseSample]
) -> tuple[ElementwiseSample, ...]:
    again = {(sample.operation, sample.bytes_moved) for sample in measured}
    return tuple(sample for sample in before if (sample.operation, sample.bytes_moved) not in again)
