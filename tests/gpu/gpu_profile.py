"""A made-up profile of a GPU: every kernel reaches half of what its counts of work allow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from gpu_samples import HOPPER

from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.select import GPU_FLOP_PER_S, nominal_time_s
from sparseplan.profiles.sample_kernels import kernels_to_time
from sparseplan.profiles.schema import (
    Ceiling,
    CeilingUnit,
    ElementwiseSample,
    Fingerprint,
    GpuIdentity,
    KernelSample,
    MachineProfile,
)
from sparseplan.profiles.timing import TimeStats

LAUNCH_S = 2e-6
IDENTITY = GpuIdentity(
    compute_capability="9.0",
    multiprocessors=108,
    l2_bytes=40 << 20,
    memory_bytes=80 << 30,
    driver_version="1.0",
    cuda_version="13.0",
    triton_version="3.6.0",
)
FINGERPRINT = Fingerprint(
    cpu_model="Synthetic CPU",
    isa=HOPPER.isa,
    cores_physical=16,
    cores_usable=16,
    l1d_bytes=32 << 10,
    l2_bytes=1 << 20,
    l3_bytes=32 << 20,
    memory_bytes=16 << 30,
    gpu_model="Synthetic GPU",
    operating_system="none",
    python_version="3.12",
    torch_version="2.11",
    sparseplan_version="0.1.0",
    gpu=IDENTITY,
)


def exactly(time_s: float) -> TimeStats:
    return TimeStats(median=time_s, low=0.999 * time_s, high=1.001 * time_s, n=9)


def ceilings() -> tuple[Ceiling, ...]:
    values: dict[str, tuple[float, CeilingUnit]] = {
        f"flop_per_s:{unit}": (rate, "flop/s") for unit, rate in GPU_FLOP_PER_S.items()
    }
    values |= {
        "bandwidth_byte_per_s:l2": (4.5e12, "byte/s"),
        "bandwidth_byte_per_s:dram": (2.0e12, "byte/s"),
        "latency_s:launch_eager": (5e-6, "s"),
        "latency_s:launch_graph": (LAUNCH_S, "s"),
    }
    return tuple(
        Ceiling(name=name, value=value, low=value, high=value, unit=unit, threads=1, source="assumed")
        for name, (value, unit) in values.items()
    )


def gpu_profile(problems: Sequence[Problem]) -> MachineProfile:
    """What such a GPU would have measured on problems."""
    return MachineProfile(
        created=datetime(2030, 1, 1, tzinfo=UTC),
        device="cuda",
        budget="quick",
        threads=1,
        fingerprint=FINGERPRINT,
        ceilings=ceilings(),
        samples=tuple(
            KernelSample(
                problem=problem,
                kernel=kernel.name,
                time_s=exactly(LAUNCH_S + 2.0 * nominal_time_s(kernel, problem, HOPPER)),
                pack_time_s=1e-3,
                noisy=False,
            )
            for problem in problems
            for kernel in kernels_to_time(problem, HOPPER, REGISTRY, every_isa=False)
        ),
        elementwise=tuple(
            ElementwiseSample(operation="relu", bytes_moved=size, threads=1, time_s=exactly(LAUNCH_S + size / 1e12))
            for size in (1e5, 1e6, 1e7, 1e8)
        ),
        networks=(),
        stability=(),
        duration_s=1.0,
    )
