"""One problem of a profile: every kernel that may run it, timed in turn."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch

from ..kernels.errors import SparseplanWarning, UnsupportedError
from ..kernels.inputs import random_inputs
from ..kernels.pattern import DENSE, parse_pattern
from ..kernels.problem import Problem
from ..kernels.select import eligible
from ..kernels.spec import KernelSpec, Machine
from ..kernels.weights import make_weight
from .schema import KernelSample
from .stopwatch import Stopwatch
from .timing import Timer, measure_alternating, pool

NOISY_SPREAD_FRAC = 0.02


def kernels_to_time(
    problem: Problem, machine: Machine, registry: Sequence[KernelSpec], *, every_isa: bool
) -> tuple[KernelSpec, ...]:
    """Kernels that tell something on a problem: dense ones on dense problems, the rest where they can skip.

    Those that skip each zero by itself are timed on unstructured problems alone: all zeros look the same to them.

    Parameters
    ----------
    every_isa : bool
        False leaves out those of lesser instruction sets than the best one here.
    """
    kinds = parse_pattern(problem.pattern).kinds or (DENSE.text,)
    fair = [k for k in eligible(problem, machine, registry) if not set(kinds).isdisjoint(k.patterns)]
    if "unstructured" not in kinds:
        fair = [k for k in fair if "unstructured" not in k.patterns]
    best = max((_rank(kernel, machine) for kernel in fair), default=0)
    return tuple(k for k in fair if every_isa or k.isa == "any" or _rank(k, machine) == best)


def _rank(kernel: KernelSpec, machine: Machine) -> int:
    """Place of the kernel's instruction set among those of the machine, weakest first."""
    return machine.isa.index(kernel.isa) if kernel.isa in machine.isa else -1


def sample_kernels(
    problem: Problem,
    kernels: Sequence[KernelSpec],
    *,
    generator: torch.Generator,
    budget_s: float,
    timer: Timer = measure_alternating,
) -> tuple[KernelSample, ...]:
    """Pack a random weight for each kernel, with bias and ReLU as in a network, and time them in alternation.

    Parameters
    ----------
    kernels : sequence of KernelSpec
        Eligible ones; torch's thread count must already be that of the problem.
    generator : torch.Generator
        Source of the weights and the input; they are made, and the kernels run, on its device.
    budget_s : float
        For all of them together, in seconds.
    timer : Timer
        What takes the times on that device.
    """
    if not kernels:
        return ()
    with generator.device:
        inputs = random_inputs(problem, make_weight(problem, generator), generator)
    calls: list[Callable[[], object]] = []
    pack_times_s: list[float] = []
    with torch.inference_mode():
        for kernel in kernels:
            start = time.perf_counter()
            packed = inputs.pack(kernel)
            pack_times_s.append(time.perf_counter() - start)
            calls.append(partial(kernel.run, packed, inputs.x_for(kernel)))
        times = timer(calls, budget_s=budget_s, target_spread_frac=NOISY_SPREAD_FRAC)
    return tuple(
        KernelSample(
            problem=problem,
            kernel=kernel.name,
            time_s=time_s,
            pack_time_s=pack_time_s,
            noisy=time_s.spread_frac > NOISY_SPREAD_FRAC,
        )
        for kernel, time_s, pack_time_s in zip(kernels, times, pack_times_s, strict=True)
    )


def sample_on(
    watch: Stopwatch,
    problem: Problem,
    kernels: Sequence[KernelSpec],
    *,
    generator: torch.Generator,
    budget_s: float,
) -> tuple[KernelSample, ...]:
    """As `sample_kernels`, on the device of a stopwatch; none, with a warning, where a GPU's library refuses."""
    try:
        return sample_kernels(problem, kernels, generator=generator, budget_s=budget_s, timer=watch.kernels)
    except (RuntimeError, UnsupportedError) as failure:
        # What torch, the driver (both for want of memory too) and our kernels raise: one problem must not cost all.
        if watch.gpu is None:
            raise
        line = (str(failure).splitlines() or [""])[0]
        warnings.warn(f"not measured: {problem}: {line}", SparseplanWarning, stacklevel=2)
        return ()


def pooled_sample(takes: Sequence[KernelSample]) -> KernelSample:
    """One sample from several of the same kernel and problem, taken apart from each other."""
    time_s = pool([take.time_s for take in takes])
    return takes[0].model_copy(update={"time_s": time_s, "noisy": time_s.spread_frac > NOISY_SPREAD_FRAC})
