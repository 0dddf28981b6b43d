"""The ceilings of the machine: what no kernel can exceed."""

from __future__ import annotations

import mmap
import statistics
import time
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import torch

from ..kernels.spec import Unit
from .plausible import require_measured
from .schema import Ceiling, Fingerprint
from .timing import measure

PROBE_S = 0.02
REPEATS = 5
FAULTS = 4096
"""Pages touched for the first time to see what one costs."""
L1_ASSUMED_BYTES = 32 * 1024
"""Where the system does not tell: the smallest L1 data cache of server and laptop cores in use."""
LARGEST_PROBE_BYTES = 1 << 29
"""Memory all threads together may take for the probe of the main memory."""
BEYOND_CACHE = 4
"""The probe of the main memory is this many times the last cache, so that little of it can stay there."""


class Probes(Protocol):
    """The part of the native module that measures ceilings; all rates are those of all threads together."""

    def peak_flop_per_s(self, unit: Unit, seconds: float, threads: int) -> float | None: ...
    def bandwidth_byte_per_s(self, bytes_per_thread: int, seconds: float, threads: int) -> float: ...
    def parallel_region_latency_s(self, threads: int) -> float: ...


def measure_ceilings(fingerprint: Fingerprint, probes: Probes, *, threads: int) -> tuple[Ceiling, ...]:
    """Measure arithmetic, bandwidth and latency ceilings for 1 .. `threads` threads.

    Beyond four threads only powers of two and `threads` itself are measured. Rates are the best of their repeats, as
    disturbance only ever lowers them; latencies are medians. A unit that this CPU lacks has no ceiling.

    Raises
    ------
    UnsupportedError
        If a value cannot be that of a real machine.
    """
    ceilings: list[Ceiling] = []
    for count in thread_counts(threads):
        ceilings += _arithmetic(probes, count)
        for level, size in probe_bytes(fingerprint, count).items():
            samples = [probes.bandwidth_byte_per_s(size, PROBE_S, count) for _ in range(REPEATS)]
            ceilings.append(_ceiling(f"bandwidth_byte_per_s:{level}", samples, "byte/s", count))
        latencies = [probes.parallel_region_latency_s(count) for _ in range(REPEATS)]
        ceilings.append(_ceiling("latency_s:parallel_region", latencies, "s", count))
        ceilings.append(_torch_op(count))
    ceilings.append(_ceiling("latency_s:page_fault", [_page_fault_s() for _ in range(REPEATS)], "s", threads))
    measured = tuple(ceilings)
    require_measured(measured)
    return measured


def thread_counts(threads: int) -> tuple[int, ...]:
    """The thread counts that are measured."""
    if threads <= 4:
        return tuple(range(1, threads + 1))
    return (*(1 << power for power in range(threads.bit_length()) if 1 << power < threads), threads)


def probe_bytes(fingerprint: Fingerprint, threads: int) -> dict[str, int]:
    """Bytes that each thread touches to see one memory level, by level; caches that do not exist are left out."""
    l1 = fingerprint.l1d_bytes or L1_ASSUMED_BYTES
    sizes = {"l1": l1 // 2}
    last = l1 * threads
    if fingerprint.l2_bytes:
        sizes["l2"] = fingerprint.l2_bytes // 2
        last = fingerprint.l2_bytes * threads
    if fingerprint.l3_bytes // (2 * threads) > 2 * sizes.get("l2", sizes["l1"]):
        sizes["l3"] = fingerprint.l3_bytes // (2 * threads)
        last = fingerprint.l3_bytes
    outside = min(BEYOND_CACHE * last, LARGEST_PROBE_BYTES, fingerprint.memory_bytes // 4)
    sizes["dram"] = max(outside // threads, 2 * max(sizes.values()))
    return sizes


def _arithmetic(probes: Probes, threads: int) -> list[Ceiling]:
    units: tuple[Unit, ...] = ("fma_f32", "fma_f16", "dot_bf16", "dot_int8", "tile_bf16", "tile_int8")
    found = []
    for unit in units:
        samples = [probes.peak_flop_per_s(unit, PROBE_S, threads) for _ in range(REPEATS)]
        present = [sample for sample in samples if sample]
        if present:
            found.append(_ceiling(f"flop_per_s:{unit}", present, "flop/s", threads))
    return found


def _torch_op(threads: int) -> Ceiling:
    """The cost of calling torch at all: an addition of two numbers."""
    x = torch.ones(1)
    with torch.inference_mode():
        time_s = measure(lambda: torch.add(x, x), budget_s=PROBE_S)
    return Ceiling(
        name="latency_s:torch_op",
        value=time_s.median,
        low=time_s.low,
        high=time_s.high,
        unit="s",
        threads=threads,
        source="measured",
    )


def _page_fault_s() -> float:
    """Touching pages for the first time, less touching them again."""
    with mmap.mmap(-1, FAULTS * mmap.PAGESIZE) as memory:
        pages = np.frombuffer(memory, dtype=np.uint8)[:: mmap.PAGESIZE]
        spans = []
        for _ in range(2):
            start = time.perf_counter()
            pages.fill(1)
            spans.append(time.perf_counter() - start)
        # The mapping cannot be closed while an array looks at it.
        del pages
    return max(spans[0] - spans[1], 1e-9 * FAULTS) / FAULTS


def _ceiling(name: str, samples: list[float], unit: Literal["flop/s", "byte/s", "s"], threads: int) -> Ceiling:
    central: Callable[[list[float]], float] = statistics.median if unit == "s" else max
    return Ceiling(
        name=name,
        value=central(samples),
        low=min(samples),
        high=max(samples),
        unit=unit,
        threads=threads,
        source="measured",
    )
