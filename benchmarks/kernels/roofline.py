"""The time that no kernel with the same counts of work can beat on this machine."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np

from sparseplan.kernels import _native
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.perfmodel.limits import Limits, limits_of
from sparseplan.profiles.ceilings import measure_ceilings
from sparseplan.profiles.fingerprint import read_fingerprint
from sparseplan.profiles.schema import MachineProfile


def measure_limits(machine: Machine, threads: int) -> Limits:
    """Measure arithmetic and bandwidth ceilings for 1 .. `threads` threads; takes a second or two."""
    fingerprint = read_fingerprint(machine)
    return limits_of(
        MachineProfile(
            created=datetime.now(UTC),
            budget="quick",
            threads=threads,
            fingerprint=fingerprint,
            ceilings=measure_ceilings(fingerprint, _native, threads=threads),
            samples=(),
            elementwise=(),
            networks=(),
            stability=(),
            duration_s=0.0,
        )
    )


def bound_s(problem: Problem, kernel: KernelSpec, limits: Limits) -> float:
    """The longest of three times at their ceilings: arithmetic, loads from the first cache, compulsory bytes.

    The compulsory bytes come from whatever cache holds them all, as calls follow one another on the same data. NaN
    where the machine has no ceiling for the kernel's execution unit.
    """
    cost = kernel.cost(problem)
    if cost.unit not in limits.flop_per_s:
        return math.nan
    busy = np.array([float(min(problem.threads, max(cost.tasks, 1)))])
    first_cache = np.array([1.0])
    return max(
        float(work / rate[0])
        for work, rate in (
            (cost.flop, limits.flop_rate(cost.unit, busy)),
            (cost.bytes_streamed, limits.bandwidth(first_cache, busy)),
            (cost.bytes_moved, limits.bandwidth(cost.bytes_moved / busy, busy)),
        )
    )
