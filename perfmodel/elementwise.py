"""What lies between the layers: element-wise operations, bound by memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from ..profiles.schema import ElementwiseSample
from .interval import UNKNOWN, LogInterval, conformal_interval
from .limits import Floats, Limits

GENERAL = ""
"""Name of the line through all streaming operations together, for those that were not measured."""
NOT_STREAMING = ("max_pool",)
"""Measured operations that compare within windows and are not bound by memory: no guide to others."""
PRIOR_LOG = np.log([2.0, 0.5])
PRIOR_WIDTH = np.log([3.0, 3.0])
MODEL_ERROR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementwiseModel:
    """``time = (overhead_scale * overhead + bytes / (efficiency * bandwidth)) * correction``.

    Attributes
    ----------
    log_bytes, log_correction : array
        [samples]: what the line leaves over at the sizes that were measured, interpolated between them; empty for the
        line through several operations.
    largest_bytes : float
        Largest operation that was measured; 0 without samples.
    """

    overhead_scale: float
    efficiency: float
    log_bytes: Floats
    log_correction: Floats
    interval: LogInterval
    largest_bytes: float

    def times(self, bytes_moved: Floats, limits: Limits, threads: int) -> tuple[Floats, Floats]:
        """(overhead, memory) seconds, [operations] each."""
        overhead_s, memory_s = _terms(bytes_moved, limits, threads)
        correction = np.exp(_interpolate(np.log(np.maximum(bytes_moved, 1.0)), self.log_bytes, self.log_correction))
        return overhead_s * self.overhead_scale * correction, memory_s / self.efficiency * correction


def fit_elementwise(
    samples: Sequence[ElementwiseSample], limits: Limits, threads: int
) -> Mapping[str, ElementwiseModel]:
    """One line for each operation, and `GENERAL` through them all."""
    by_operation: dict[str, list[ElementwiseSample]] = defaultdict(list)
    for sample in samples:
        by_operation[sample.operation].append(sample)
        if sample.operation not in NOT_STREAMING:
            by_operation[GENERAL].append(sample)
    lines = {operation: _fit_one(found, limits, threads) for operation, found in by_operation.items()}
    overhead_scale, efficiency = np.exp(PRIOR_LOG).tolist()
    unmeasured = ElementwiseModel(
        overhead_scale=overhead_scale,
        efficiency=efficiency,
        log_bytes=np.empty(0),
        log_correction=np.empty(0),
        interval=UNKNOWN,
        largest_bytes=0.0,
    )
    return {GENERAL: unmeasured, **lines}


def _fit_one(samples: Sequence[ElementwiseSample], limits: Limits, threads: int) -> ElementwiseModel:
    bytes_moved = np.array([sample.bytes_moved for sample in samples])
    overhead_s, memory_s = _terms(bytes_moved, limits, threads)
    log_measured = np.log([sample.time_s.median for sample in samples])

    def log_time(vector: Floats, rows: np.ndarray) -> Floats:
        overhead_scale, efficiency = np.exp(vector)
        return np.log(overhead_s[rows] * overhead_scale + memory_s[rows] / efficiency)

    def fit(rows: np.ndarray) -> Floats:
        def residuals(vector: Floats) -> Floats:
            misfit = log_time(vector, rows) - log_measured[rows]
            return np.concatenate([misfit / MODEL_ERROR, (vector - PRIOR_LOG) / PRIOR_WIDTH])

        return optimize.least_squares(residuals, PRIOR_LOG, loss="soft_l1").x

    every = np.arange(len(samples))
    log_bytes = np.log(bytes_moved)
    one_operation = len({sample.operation for sample in samples}) == 1

    def corrections(vector: Floats, rows: np.ndarray) -> tuple[Floats, Floats]:
        """(log_bytes, log_correction) of some samples, in order of size."""
        if not one_operation:
            return np.empty(0), np.empty(0)
        ordered = rows[np.argsort(log_bytes[rows])]
        return log_bytes[ordered], log_measured[ordered] - log_time(vector, ordered)

    # The ends are not left out where sizes are interpolated: predictions between them never lack them.
    left_out = every[np.argsort(log_bytes)][1:-1] if one_operation and len(samples) > 2 else every
    held_out = []
    for row in left_out if len(samples) > 1 else ():
        others = np.delete(every, row)
        vector = fit(others)
        missing = log_measured[row] - log_time(vector, every[row : row + 1])[0]
        held_out.append(missing - float(_interpolate(log_bytes[row], *corrections(vector, others))))
    # Leaving a size out doubles the gap that is interpolated over, and with it at least the error.
    share = 0.5 if one_operation else 1.0
    vector = fit(every)
    overhead_scale, efficiency = np.exp(vector)
    at, correction = corrections(vector, every)
    return ElementwiseModel(
        overhead_scale=float(overhead_scale),
        efficiency=float(efficiency),
        log_bytes=at,
        log_correction=correction,
        interval=conformal_interval(np.array(held_out) * share),
        largest_bytes=float(bytes_moved.max()),
    )


def _interpolate(at: Floats, log_bytes: Floats, log_correction: Floats) -> Floats:
    """Correction at some sizes; that of the nearest size outside the measured ones, none where nothing was."""
    return np.interp(at, log_bytes, log_correction) if len(log_bytes) else np.zeros_like(at)


def _terms(bytes_moved: Floats, limits: Limits, threads: int) -> tuple[Floats, Floats]:
    count = limits.workers_of(np.full(len(bytes_moved), float(threads)))
    region_s = limits.parallel_region(count) if threads > 1 else 0.0
    overhead_s = np.full(len(bytes_moved), limits.torch_op_s) + region_s
    memory_s = bytes_moved / limits.bandwidth(bytes_moved / count, count)
    return overhead_s, memory_s
