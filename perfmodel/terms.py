"""Roofline terms: what a kernel's counts of work cost at the ceilings of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ..kernels.problem import Problem
from ..kernels.spec import KernelSpec
from .limits import Floats, Limits

RESOURCES = ("arithmetic", "streaming", "memory", "overhead", "copying")
"""What can bind a kernel, in the order of `roofline.roofline_times`."""
ONE_BY_ONE_S, START_S = 0.3e-9, 3e-9
"""About a cycle for a value that is moved by itself, about ten for a loop that starts over (assumed; each kernel's own
multiple of them is fitted)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """Least time of each resource for a sequence of problems.

    Attributes
    ----------
    arithmetic_s, streaming_s, memory_s : array
        [problems]: executed flop, bytes through the innermost cache, compulsory bytes, each at its ceiling.
    starts_s : array
        [problems]: starting inner loops over.
    copying_s, dealing_s : array
        [problems]: copies before and after the inner loops, in whole vectors and value by value.
    overhead_s : array
        [problems]: calling torch and starting the threads.
    work_frac : array
        [problems]: executed flop over those of the dense layer, at most 1.
    """

    arithmetic_s: Floats
    streaming_s: Floats
    memory_s: Floats
    starts_s: Floats
    copying_s: Floats
    dealing_s: Floats
    overhead_s: Floats
    work_frac: Floats

    def rows(self, chosen: NDArray[np.bool_]) -> Terms:
        """The terms of some of the problems."""
        return Terms(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def roofline_terms(problems: Sequence[Problem], kernel: KernelSpec, limits: Limits) -> Terms:
    """Terms of a kernel on problems.

    Threads help only as far as the kernel has tasks for them: `tasks` pieces on `t` threads take
    ``ceil(tasks / t)`` rounds, so that ``tasks / ceil(tasks / t)`` threads are busy on average. One task's share of
    the bytes decides the memory level that its inner loop streams from.
    """
    costs = [kernel.cost(problem) for problem in problems]
    flop = np.array([cost.flop for cost in costs])
    streamed = np.array([cost.bytes_streamed for cost in costs])
    moved = np.array([cost.bytes_moved for cost in costs])
    copied = np.array([cost.bytes_copied for cost in costs])
    tasks = np.maximum(np.array([cost.tasks for cost in costs], dtype=float), 1.0)
    threads = np.array([problem.threads for problem in problems], dtype=float)
    dense = np.array([problem.flop_dense_equiv for problem in problems])
    workers = limits.workers_of(threads)
    busy = tasks / np.ceil(tasks / workers)
    rate = np.empty_like(flop)
    for unit in {cost.unit for cost in costs}:
        rows = np.array([cost.unit == unit for cost in costs])
        rate[rows] = limits.flop_rate(unit, busy[rows])
    return Terms(
        arithmetic_s=flop / rate,
        streaming_s=streamed / limits.bandwidth(moved / tasks, busy),
        memory_s=moved / limits.bandwidth(moved / busy, busy),
        starts_s=np.array([cost.starts for cost in costs]) * START_S / busy,
        copying_s=copied / limits.bandwidth((moved + copied) / busy, busy),
        dealing_s=np.array([cost.values_dealt for cost in costs]) * ONE_BY_ONE_S / busy,
        overhead_s=limits.torch_op_s + np.where(threads > 1, limits.parallel_region(threads), 0.0),
        work_frac=np.clip(flop / dense, 1e-6, 1.0),
    )
