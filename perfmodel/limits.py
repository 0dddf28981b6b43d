"""The ceilings of a profile as continuous functions of threads and footprint."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..kernels.errors import InputError
from ..kernels.spec import GpuUnit, Unit
from ..profiles.schema import Fingerprint, MachineProfile

Floats = NDArray[np.float64]

LEVELS = ("l1", "l2", "l3", "dram")
UNITS: tuple[Unit, ...] = ("fma_f32", "fma_f16", "dot_bf16", "dot_int8", "tile_bf16", "tile_int8")
ASSUMED_CACHE_BYTES = {"l1": 32 * 1024, "l2": 512 * 1024, "l3": 8 * 1024 * 1024}
"""Where the system does not tell: small caches among those of the server and laptop cores in use."""
SATURATING_FRAC = 0.5
"""Share of a GPU's multiprocessors that draws all its memory and cache can give (assumed)."""
STEP_FACTOR = 2.0
"""Bandwidth falls from one level to the next between size / 2 and size * 2: replacement blurs the step."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limits:
    """What the machine can do at most.

    Attributes
    ----------
    flop_per_s : mapping
        By execution unit, [threads]: of all threads together.
    bandwidth_byte_per_s : array
        [threads, knots]: of all threads together, at the footprints `knots_log_bytes`.
    knots_log_bytes : array
        [knots], natural logarithm of the bytes that one thread touches.
    parallel_region_s : array
        [threads].
    torch_op_s : float
        Cost of calling the smallest torch operation.
    workers : int or None
        Multiprocessors that share the tasks of every kernel of a GPU; on a CPU the threads of the problem do.
    """

    flop_per_s: Mapping[Unit, Floats]
    bandwidth_byte_per_s: Floats
    knots_log_bytes: Floats
    parallel_region_s: Floats
    torch_op_s: float
    workers: int | None = None

    def workers_of(self, threads: Floats) -> Floats:
        """What shares the tasks of problems that ask for so many threads."""
        return threads if self.workers is None else np.full_like(threads, float(self.workers))

    def flop_rate(self, unit: Unit, threads: Floats) -> Floats:
        """Highest flop/s of a unit at a (fractional) number of busy threads.

        A machine without the unit runs such work through float32.
        """
        return _at_threads(self.flop_per_s.get(unit, self.flop_per_s["fma_f32"]), threads)

    def bandwidth(self, footprint_bytes: Floats, threads: Floats) -> Floats:
        """Highest byte/s of all threads together when each touches `footprint_bytes` again and again."""
        log_bytes = np.log(np.maximum(footprint_bytes, 1.0))
        last = len(self.knots_log_bytes) - 1
        position = np.interp(log_bytes, self.knots_log_bytes, np.arange(last + 1, dtype=float))
        below = np.floor(position).astype(int)
        above = np.minimum(below + 1, last)
        share = position - below
        by_knot = np.log(np.stack([_at_threads(curve, threads) for curve in self.bandwidth_byte_per_s.T], axis=-1))
        rows = np.arange(len(log_bytes))
        return np.exp((1.0 - share) * by_knot[rows, below] + share * by_knot[rows, above])

    def parallel_region(self, threads: Floats) -> Floats:
        """Seconds to start and join the threads."""
        return _at_threads(self.parallel_region_s, threads)


def limits_of(profile: MachineProfile) -> Limits:
    """Read the ceilings of a profile.

    Raises
    ------
    InputError
        If the profile lacks a ceiling that every machine has.
    """
    if profile.device == "cuda":
        return _limits_of_gpu(profile)
    curves = {level: _by_threads(profile, f"bandwidth_byte_per_s:{level}") for level in LEVELS}
    levels = [level for level in LEVELS if curves[level] is not None]
    if not levels:
        raise InputError("the profile has no bandwidth ceiling; make the profile again")
    knots = [0.0]
    columns = [_required(profile, f"bandwidth_byte_per_s:{levels[0]}")]
    for inner, outer in itertools.pairwise(levels):
        size = _cache_bytes_per_thread(profile.fingerprint, inner, profile.threads)
        for factor, level in ((1.0 / STEP_FACTOR, inner), (STEP_FACTOR, outer)):
            knots.append(max(np.log(size * factor), knots[-1] + 1e-6))
            columns.append(_required(profile, f"bandwidth_byte_per_s:{level}"))
    rates = {unit: _by_threads(profile, f"flop_per_s:{unit}") for unit in UNITS}
    return Limits(
        flop_per_s={
            "fma_f32": _required(profile, "flop_per_s:fma_f32"),
            **{unit: rate for unit, rate in rates.items() if rate is not None},
        },
        bandwidth_byte_per_s=np.stack(columns, axis=1),
        knots_log_bytes=np.asarray(knots),
        parallel_region_s=_required(profile, "latency_s:parallel_region"),
        torch_op_s=float(_required(profile, "latency_s:torch_op")[-1]),
    )


def _limits_of_gpu(profile: MachineProfile) -> Limits:
    """Multiprocessors are the threads of a GPU, and its L2 cache is one that all of them share."""
    gpu = profile.fingerprint.gpu
    if gpu is None:
        raise InputError("the profile of a GPU does not say which; make the profile again")
    workers = gpu.multiprocessors
    busy_frac = np.arange(1, workers + 1) / workers
    drawing_frac = np.minimum(1.0, busy_frac / SATURATING_FRAC)
    l2, dram = (float(_required(profile, f"bandwidth_byte_per_s:{level}")[0]) for level in ("l2", "dram"))
    step = np.log(gpu.l2_bytes / workers)
    units: tuple[GpuUnit, ...] = get_args(GpuUnit)
    rates: dict[Unit, Floats | None] = {unit: _by_threads(profile, f"flop_per_s:{unit}") for unit in units}
    rates["fma_f32"] = _required(profile, "flop_per_s:gpu_f32")
    return Limits(
        flop_per_s={unit: float(rate[0]) * busy_frac for unit, rate in rates.items() if rate is not None},
        bandwidth_byte_per_s=np.stack([l2 * drawing_frac, l2 * drawing_frac, dram * drawing_frac], axis=1),
        knots_log_bytes=np.array([0.0, step - np.log(STEP_FACTOR), step + np.log(STEP_FACTOR)]),
        parallel_region_s=np.zeros(workers),
        torch_op_s=float(_required(profile, "latency_s:launch_graph")[0]),
        workers=workers,
    )


def _cache_bytes_per_thread(fingerprint: Fingerprint, level: str, threads: int) -> float:
    size = {"l1": fingerprint.l1d_bytes, "l2": fingerprint.l2_bytes, "l3": fingerprint.l3_bytes}[level]
    size = size or ASSUMED_CACHE_BYTES[level]
    return size / threads if level == "l3" else float(size)


def _required(profile: MachineProfile, name: str) -> Floats:
    curve = _by_threads(profile, name)
    if curve is None:
        raise InputError(f"the profile has no ceiling {name}; make the profile again")
    return curve


def _by_threads(profile: MachineProfile, name: str) -> Floats | None:
    """[threads] for 1 .. the profile's thread count; counts without a measurement are interpolated."""
    found = {ceiling.threads: ceiling.value for ceiling in profile.ceilings if ceiling.name == name}
    if not found:
        return None
    counts = sorted(found)
    return np.interp(np.arange(1, profile.threads + 1), counts, [found[count] for count in counts])


def _at_threads(curve: Floats, threads: Floats) -> Floats:
    return np.interp(threads, np.arange(1, len(curve) + 1, dtype=float), curve)
