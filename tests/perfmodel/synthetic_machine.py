"""A machine whose truth is known: kernels with simple counts, a profile computed from chosen efficiencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from sparseplan.kernels.problem import Problem
from sparseplan.kernels.spec import Cost, KernelSpec
from sparseplan.perfmodel.limits import limits_of
from sparseplan.perfmodel.roofline import Roofline, combine, roofline_times
from sparseplan.perfmodel.terms import roofline_terms
from sparseplan.profiles.schema import Ceiling, ElementwiseSample, Fingerprint, KernelSample, MachineProfile
from sparseplan.profiles.timing import TimeStats

THREADS = 2


def fingerprint() -> Fingerprint:
    return Fingerprint(
        cpu_model="Synthetic CPU",
        isa=("baseline",),
        cores_physical=2,
        cores_usable=2,
        l1d_bytes=32 << 10,
        l2_bytes=1 << 20,
        l3_bytes=32 << 20,
        memory_bytes=16 << 30,
        gpu_model=None,
        operating_system="none",
        python_version="3.11",
        torch_version="2.9",
        sparseplan_version="0.1.0",
    )


def ceilings(threads: int = THREADS) -> tuple[Ceiling, ...]:
    rates = {
        "flop_per_s:fma_f32": (1e11, "flop/s"),
        "bandwidth_byte_per_s:l1": (4e11, "byte/s"),
        "bandwidth_byte_per_s:l2": (2e11, "byte/s"),
        "bandwidth_byte_per_s:l3": (5e10, "byte/s"),
        "bandwidth_byte_per_s:dram": (1e10, "byte/s"),
    }
    found = []
    for count in range(1, threads + 1):
        values = {name: (value * count, unit) for name, (value, unit) in rates.items()}
        values["latency_s:parallel_region"] = (1e-6 * count, "s")
        values["latency_s:torch_op"] = (2e-6, "s")
        for name, (value, unit) in values.items():
            found.append(
                Ceiling(
                    name=name,
                    value=value,
                    low=value * 0.99,
                    high=value * 1.01,
                    unit=unit,  # type: ignore[arg-type]
                    threads=count,
                    source="assumed",
                )
            )
    return tuple(found)


def _never(*_: object) -> None:
    raise AssertionError("a synthetic kernel only has a cost")


def _cost(problem: Problem) -> Cost:
    flop = problem.flop_useful
    return Cost(
        unit="fma_f32",
        flop=flop,
        bytes_streamed=flop * 0.5,
        bytes_moved=problem.input_bytes + problem.output_bytes + 2.0 * problem.weight_bytes * (1.0 - problem.sparsity),
        tasks=max(1, problem.n * problem.c_out // 16),
        bytes_copied=2.0 * problem.input_bytes,
        values_dealt=float(problem.n * problem.c_in * problem.h_in),
        starts=float(problem.n * problem.c_out),
    )


def synthetic_kernel(name: str, *, patterns: tuple[str, ...] = ("unstructured",)) -> KernelSpec:
    return KernelSpec(
        name=name,
        op="conv2d",
        patterns=patterns,
        dtype="float32",
        isa="any",
        layout="nchw",
        pack=_never,
        run=_never,  # type: ignore[arg-type]
        cost=_cost,
        why_unsupported=lambda problem, machine: None,
    )


SPARSE = synthetic_kernel("conv2d_unstructured_f32_synthetic")
UNMEASURED = synthetic_kernel("conv2d_unstructured_f32_unmeasured")
TRUTH = Roofline(
    arithmetic=0.4,
    streaming=0.9,
    memory=0.5,
    copying=0.7,
    dealing_scale=1.5,
    starts_scale=2.0,
    overhead_scale=3.0,
    thinning=0.15,
    sharpness=3.0,
)


def random_problems(count: int, seed: int) -> tuple[Problem, ...]:
    generator = np.random.default_rng(seed)
    problems = []
    for _ in range(count):
        size = int(generator.choice([4, 7, 8, 13, 14, 16, 28, 32]))
        kernel = int(generator.choice([1, 3]))
        problems.append(
            Problem(
                op="conv2d",
                n=int(generator.choice([1, 4, 16, 32])),
                c_in=int(generator.integers(8, 300)),
                c_out=int(generator.integers(8, 300)),
                h_in=size,
                w_in=size,
                kernel=(kernel, kernel),
                padding=(kernel // 2, kernel // 2),
                pattern="unstructured",
                sparsity=float(generator.choice([0.5, 0.7, 0.8, 0.9, 0.95])),
                threads=THREADS,
            )
        )
    return tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the synthetic machine takes: the roofline, a smooth dependence on the shape, and noise."""

    roofline: Roofline = TRUTH
    shape_effect: float = 0.0
    noise: float = 0.0

    def times(self, problems: Sequence[Problem], seed: int) -> np.ndarray:
        limits = limits_of(profile_of(()))
        exact = combine(roofline_times(roofline_terms(problems, SPARSE, limits), self.roofline), self.roofline)
        channels = np.log([problem.c_in for problem in problems])
        factor = np.exp(self.shape_effect * np.sin(2.0 * channels))
        return exact * factor * np.exp(self.noise * np.random.default_rng(seed).standard_normal(len(problems)))


def samples_of(problems: Sequence[Problem], times_s: Sequence[float], kernel: str) -> tuple[KernelSample, ...]:
    return tuple(
        KernelSample(
            problem=problem,
            kernel=kernel,
            time_s=TimeStats(median=time_s, low=time_s * 0.995, high=time_s * 1.005, n=20),
            pack_time_s=0.0,
            noisy=False,
        )
        for problem, time_s in zip(problems, times_s, strict=True)
    )


def elementwise_samples(efficiency: float, overhead_scale: float) -> tuple[ElementwiseSample, ...]:
    limits = limits_of(profile_of(()))
    found = []
    for operation, factor in (("relu", 1.0), ("add", 1.3)):
        for bytes_moved in (2.0**power for power in range(14, 27, 2)):
            memory_s = bytes_moved / float(
                limits.bandwidth(np.array([bytes_moved / THREADS]), np.array([float(THREADS)]))[0]
            )
            time_s = factor * memory_s / efficiency + overhead_scale * (2e-6 + 2e-6)
            found.append(
                ElementwiseSample(
                    operation=operation,
                    bytes_moved=bytes_moved,
                    threads=THREADS,
                    time_s=TimeStats(median=time_s, low=time_s, high=time_s, n=20),
                )
            )
    return tuple(found)


def profile_of(
    samples: tuple[KernelSample, ...], elementwise: tuple[ElementwiseSample, ...] = (), *, threads: int = THREADS
) -> MachineProfile:
    return MachineProfile(
        created=datetime(2030, 1, 1, tzinfo=UTC),
        budget="quick",
        threads=threads,
        fingerprint=fingerprint(),
        ceilings=ceilings(threads),
        samples=samples,
        elementwise=elementwise,
        networks=(),
        stability=(),
        duration_s=1.0,
    )
