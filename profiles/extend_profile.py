"""Extend a profile: measure the very layers of a model, so that plans for it rest on measurements."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from ..kernels.pattern import parse_pattern
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.spec import KernelSpec, Machine
from .sample_kernels import kernels_to_time, sample_kernels
from .schema import KernelSample, MachineProfile

SEED = 1
PROBLEM_S = 0.25
"""Time for all kernels of one problem."""
LEVELS = {"unstructured": (0.5, 0.7, 0.82, 0.9, 0.95, 0.98)}
STRUCTURED_LEVELS = (0.25, 0.5, 0.75)
"""Sparsities measured on every layer; the model interpolates between them."""


def layer_problems(layers: Sequence[Problem], patterns: Sequence[str]) -> tuple[Problem, ...]:
    """What to measure of dense layers: each different one once, densely and under every pattern at a few sparsities."""
    problems: list[Problem] = []
    for layer in dict.fromkeys(layers):
        problems.append(layer)
        for pattern in patterns:
            fixed = parse_pattern(pattern).fixed_sparsity
            levels = LEVELS.get(pattern, STRUCTURED_LEVELS) if fixed is None else (fixed,)
            problems += [layer.with_sparsity(pattern, level) for level in levels]
    return tuple(problems)


def extend_profile(
    profile: MachineProfile,
    problems: Sequence[Problem],
    *,
    machine: Machine,
    registry: Sequence[KernelSpec],
    progress: Progress = silent,
) -> MachineProfile:
    """Measure problems on this machine and add them to its profile; an older sample of the same work is replaced.

    Parameters
    ----------
    profile : MachineProfile
        Of this very machine; see `fingerprint.differences`.
    problems : sequence of Problem
        At the profile's thread count.
    """
    start_s = time.perf_counter()
    generator = torch.Generator().manual_seed(SEED)
    added: list[KernelSample] = []
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(profile.threads)
        for done, problem in enumerate(problems):
            progress("measuring the model's layers", done, len(problems))
            kernels = kernels_to_time(problem, machine, registry, every_isa=False)
            if kernels:
                added += sample_kernels(problem, kernels, generator=generator, budget_s=PROBLEM_S)
    finally:
        torch.set_num_threads(threads_before)
    progress("measuring the model's layers", len(problems), len(problems))
    replaced = {(sample.problem, sample.kernel) for sample in added}
    kept = tuple(sample for sample in profile.samples if (sample.problem, sample.kernel) not in replaced)
    return profile.model_copy(
        update={
            "samples": kept + tuple(added),
            "duration_s": profile.duration_s + time.perf_counter() - start_s,
        }
    )
