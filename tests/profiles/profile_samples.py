"""A small profile and probes for tests."""

from __future__ import annotations

from datetime import UTC, datetime

from sparseplan.kernels.problem import Problem
from sparseplan.kernels.spec import Unit
from sparseplan.profiles.ceilings import Access
from sparseplan.profiles.schema import Ceiling, ElementwiseSample, Fingerprint, KernelSample, MachineProfile
from sparseplan.profiles.timing import TimeStats

FINGERPRINT = Fingerprint(
    cpu_model="Test CPU",
    isa=("baseline", "avx2"),
    cores_physical=4,
    cores_usable=2,
    l1d_bytes=32 << 10,
    l2_bytes=1 << 20,
    l3_bytes=32 << 20,
    memory_bytes=8 << 30,
    gpu_model=None,
    operating_system="Linux",
    python_version="3.11.0",
    torch_version="2.9.0",
    sparseplan_version="0.1.0",
)


def ceiling(name: str, value: float, *, threads: int = 1) -> Ceiling:
    unit = {"flop": "flop/s", "band": "byte/s", "late": "s"}[name[:4]]
    return Ceiling(
        name=name,
        value=value,
        low=value * 0.9,
        high=value * 1.1,
        unit=unit,  # type: ignore[arg-type]
        threads=threads,
        source="measured",
    )


def time_stats(median: float) -> TimeStats:
    return TimeStats(median=median, low=median * 0.99, high=median * 1.01, n=9)


def small_profile() -> MachineProfile:
    problem = Problem(op="conv2d", n=1, c_in=8, c_out=8, h_in=8, w_in=8, pattern="unstructured", sparsity=0.5)
    return MachineProfile(
        created=datetime(2030, 1, 1, tzinfo=UTC),
        budget="quick",
        threads=1,
        fingerprint=FINGERPRINT,
        ceilings=(ceiling("flop_per_s:fma_f32", 1e11), ceiling("bandwidth_byte_per_s:l1", 1e11)),
        samples=(
            KernelSample(
                problem=problem,
                kernel="conv2d_unstructured_f32_flat__avx2",
                time_s=time_stats(1e-5),
                pack_time_s=1e-4,
                noisy=False,
            ),
        ),
        elementwise=(ElementwiseSample(operation="relu", bytes_moved=1e6, threads=1, time_s=time_stats(1e-4)),),
        networks=(),
        stability=(),
        duration_s=1.0,
    )


class FakeProbes:
    """Answers of a machine of round numbers; `broken` replaces some of them."""

    def __init__(
        self,
        *,
        bf16: bool = True,
        fp16: bool = True,
        broken: dict[int, float] | None = None,
        broken_access: Access = "load",
        region_latency_s: float = 1e-6,
    ) -> None:
        self.bf16 = bf16
        self.fp16 = fp16
        self.region_latency_s = region_latency_s
        self.broken = broken or {}
        self.broken_access = broken_access

    def peak_flop_per_s(self, unit: Unit, seconds: float, threads: int) -> float | None:
        if unit == "dot_bf16":
            return 2e11 * threads if self.bf16 else None
        if unit == "fma_f16":
            return 2e11 * threads if self.fp16 else None
        return 1e11 * threads

    def bandwidth_byte_per_s(
        self, access: Access, bytes_per_thread: int, seconds: float, threads: int, repeats: int
    ) -> list[float]:
        if bytes_per_thread in self.broken and access == self.broken_access:
            return [self.broken[bytes_per_thread]]
        rate = 4e11 if bytes_per_thread <= 32 << 10 else 1e11 if bytes_per_thread <= 1 << 20 else 2e10
        return [rate * threads * {"load": 1.0, "store": 0.5, "copy": 0.75}[access]] * repeats

    def parallel_region_latency_s(self, threads: int) -> float:
        return self.region_latency_s

    def timer_latency_s(self) -> float:
        return 2e-8

    def cycle_s(self, threads: int, repeats: int) -> list[float]:
        # An interrupt in one chain of twenty, and a clock that wanders by 2 %.
        return [1e-7 if chain % 20 == 0 else (1.0 + 0.01 * (chain % 3)) * 2.5e-10 for chain in range(repeats)]
