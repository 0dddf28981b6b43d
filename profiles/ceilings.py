"""The ceilings of the machine: what no kernel can exceed."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal, Protocol, get_args

import torch

from ..kernels.spec import CpuUnit
from .plausible import require_measured
from .schema import CLOCK, Ceiling, CeilingUnit, Fingerprint
from .timing import measure

BUDGET_S = 1.5
"""Wall-clock time for all rates and latencies together, but for filling the buffers of the main memory."""
SHORTEST_PROBE_S, LONGEST_PROBE_S = 1e-3, 1e-2
ROUNDS, REPEATS = 2, 3
"""Each probe is repeated, and all of them once more later: a disturbance of a tenth of a second spares one round."""
CHAINS = 150
"""Chains of additions, of 0.1 ms each, that show how steady the clock is."""
TAIL_FRAC = 0.1
"""Of the chains at either end, which interrupts of the system disturb, the interval of the clock leaves out."""
L1_ASSUMED_BYTES = 32 * 1024
"""Where the system does not tell: the smallest L1 data cache of server and laptop cores in use."""
LARGEST_PROBE_BYTES = 1 << 29
"""Memory all threads together may take for the probe of the main memory."""
BEYOND_CACHE = 4
"""The probe of the main memory is this many times the last cache, so that little of it can stay there."""


Access = Literal["load", "store", "copy"]
ACCESSES: tuple[Access, ...] = get_args(Access)
UNITS: tuple[CpuUnit, ...] = get_args(CpuUnit)


class Probes(Protocol):
    """The part of the native module that measures ceilings; all rates are those of all threads together."""

    def peak_flop_per_s(self, unit: CpuUnit, seconds: float, threads: int) -> float | None: ...
    def bandwidth_byte_per_s(
        self, access: Access, bytes_per_thread: int, seconds: float, threads: int, repeats: int
    ) -> list[float]: ...
    def parallel_region_latency_s(self, threads: int) -> float: ...
    def timer_latency_s(self) -> float: ...
    def cycle_s(self, threads: int, repeats: int) -> list[float]: ...


def measure_ceilings(fingerprint: Fingerprint, probes: Probes, *, threads: int) -> tuple[Ceiling, ...]:
    """Measure arithmetic, bandwidth, latency and clock ceilings for 1 .. `threads` threads, in about 2 s.

    Beyond four threads only powers of two and `threads` itself are measured. Rates are the best of their repeats, as
    disturbance only ever lowers them; latencies are medians. A unit that this CPU lacks has no ceiling.

    Raises
    ------
    UnsupportedError
        If a value cannot be that of a real machine.
    """
    ceilings: list[Ceiling] = []
    counts = thread_counts(threads)
    for count in counts:
        sizes = probe_bytes(fingerprint, count)
        probes_to_take = len(counts) * ROUNDS * REPEATS * (len(UNITS) + len(ACCESSES) * len(sizes))
        probe_s = min(max(BUDGET_S / probes_to_take, SHORTEST_PROBE_S), LONGEST_PROBE_S)
        rates: dict[tuple[str, CeilingUnit], list[float]] = defaultdict(list)
        for _ in range(ROUNDS):
            for unit in UNITS:
                flop_rates = [probes.peak_flop_per_s(unit, probe_s, count) for _ in range(REPEATS)]
                rates[f"flop_per_s:{unit}", "flop/s"] += [rate for rate in flop_rates if rate]
            for (level, size), access in product(sizes.items(), ACCESSES):
                byte_rates = probes.bandwidth_byte_per_s(access, size, probe_s, count, REPEATS)
                rates[bandwidth_name(level, access), "byte/s"] += byte_rates
        ceilings += [_ceiling(name, samples, unit, count) for (name, unit), samples in rates.items() if samples]
        latencies = [probes.parallel_region_latency_s(count) for _ in range(REPEATS)]
        ceilings.append(_ceiling("latency_s:parallel_region", latencies, "s", count))
        ceilings.append(_torch_op(count))
        ceilings.append(clock_ceiling(probes.cycle_s(count, CHAINS), count))
    ceilings.append(_ceiling("latency_s:timer", [probes.timer_latency_s() for _ in range(REPEATS)], "s", 1))
    measured = tuple(ceilings)
    require_measured(measured)
    return measured


def bandwidth_name(level: str, access: Access) -> str:
    """Name of a bandwidth ceiling: loads, which nearly all the work of kernels is, have no suffix."""
    return f"bandwidth_byte_per_s:{level}" + ("" if access == "load" else f":{access}")


def clock_ceiling(cycle_s: Sequence[float], threads: int) -> Ceiling:
    """Clock frequency by a chain of additions of one cycle each: median, and how far it strays but for interrupts.

    Parameters
    ----------
    cycle_s : sequence of float
        Mean length of a cycle in chain after chain, seconds.
    """
    ordered = sorted(cycle_s)
    cut = int(TAIL_FRAC * len(ordered))
    return Ceiling(
        name=CLOCK,
        value=1.0 / statistics.median(ordered),
        low=1.0 / ordered[-1 - cut],
        high=1.0 / ordered[cut],
        unit="Hz",
        threads=threads,
        source="measured",
    )


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


def _torch_op(threads: int) -> Ceiling:
    """The cost of calling torch at all: an addition of two numbers."""
    x = torch.ones(1)
    with torch.inference_mode():
        time_s = measure(lambda: torch.add(x, x), budget_s=LONGEST_PROBE_S)
    return Ceiling(
        name="latency_s:torch_op",
        value=time_s.median,
        low=time_s.low,
        high=time_s.high,
        unit="s",
        threads=threads,
        source="measured",
    )


def _ceiling(name: str, samples: list[float], unit: CeilingUnit, threads: int) -> Ceiling:
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
