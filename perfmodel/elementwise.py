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
OUTPUT_FRAC = 1 / 3
"""Share of the moved bytes that are the output: a half where one tensor is read, a third where two are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementwiseModel:
    """``time = overhead_scale * overhead + bytes / (efficiency * bandwidth)``."""

    overhead_scale: float
    efficiency: float
    interval: LogInterval
    largest_bytes: float
    """Largest operation that was measured; 0 without samples."""

    def times(self, bytes_moved: Floats, limits: Limits, threads: int) -> tuple[Floats, Floats]:
        """(overhead, memory) seconds, [operations] each."""
        overhead_s, memory_s = _terms(bytes_moved, limits, threads)
        return overhead_s * self.overhead_scale, memory_s / self.efficiency


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
        overhead_scale=overhead_scale, efficiency=efficiency, interval=UNKNOWN, largest_bytes=0.0
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
    held_out = [
        log_measured[row] - log_time(fit(np.delete(every, row)), every[row : row + 1])[0]
        for row in every
        if len(samples) > 1
    ]
    overhead_scale, efficiency = np.exp(fit(every))
    return ElementwiseModel(
        overhead_scale=float(overhead_scale),
        efficiency=float(efficiency),
        interval=conformal_interval(np.array(held_out)),
        largest_bytes=float(bytes_moved.max()),
    )


def _terms(bytes_moved: Floats, limits: Limits, threads: int) -> tuple[Floats, Floats]:
    count = np.full(len(bytes_moved), float(threads))
    region_s = limits.parallel_region(count) if threads > 1 else 0.0
    overhead_s = np.full(len(bytes_moved), limits.torch_op_s) + region_s
    memory_s = bytes_moved / limits.bandwidth(bytes_moved / threads, count)
    return overhead_s, memory_s + limits.paging(bytes_moved * OUTPUT_FRAC)
