"""What a kernel or an operation between the layers is expected to take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..kernels.errors import InputError
from ..kernels.problem import Problem
from .elementwise import GENERAL, ElementwiseModel
from .kernel_model import WIDENING, KernelModel
from .limits import Floats, Limits
from .network import ASSUMED, NetworkTerms
from .schema import Interval
from .terms import RESOURCES
from .waits import handover_s, refetch_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A predicted time.

    Attributes
    ----------
    median_s, low_s, high_s : float
        Median and 90 % interval, seconds.
    bound : str
        The binding resource: one of `terms.RESOURCES`.
    extrapolated : bool
        True where the problem lies outside what was measured; the interval is wider there.
    """

    median_s: float
    low_s: float
    high_s: float
    bound: str
    extrapolated: bool

    @property
    def interval(self) -> Interval:
        """The time as documents store it."""
        return Interval(median=self.median_s, low=self.low_s, high=self.high_s)


def one_after_the_other(parts: Sequence[Prediction]) -> Prediction:
    """Of work in a row: times add up, and so do their errors, which are taken as shared; the longest part binds."""
    return Prediction(
        median_s=sum(part.median_s for part in parts),
        low_s=sum(part.low_s for part in parts),
        high_s=sum(part.high_s for part in parts),
        bound=max(parts, key=lambda part: part.median_s).bound,
        extrapolated=any(part.extrapolated for part in parts),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PerformanceModel:
    """The machine as the planner sees it; made by `fit_performance_model`.

    Attributes
    ----------
    threads : int
        Thread count of the profile; other counts are extrapolation unless they were measured.
    kernels : mapping
        By kernel name.
    network : NetworkTerms
        What a network adds to its parts.
    """

    limits: Limits
    threads: int
    kernels: Mapping[str, KernelModel]
    elementwise: Mapping[str, ElementwiseModel]
    network: NetworkTerms = ASSUMED

    def predict(self, problem: Problem, kernel: str) -> Prediction:
        """Time of one problem under the kernel of that name; see `predict_many`."""
        return self.predict_many((problem,), kernel)[0]

    def predict_many(self, problems: Sequence[Problem], kernel: str) -> tuple[Prediction, ...]:
        """Times of many problems under one kernel, at once.

        Raises
        ------
        InputError
            If the model has no kernel of that name.
        """
        if kernel not in self.kernels:
            raise InputError(f"unknown kernel {kernel!r}; the performance model has {', '.join(sorted(self.kernels))}")
        if not problems:
            return ()
        known = self.kernels[kernel]
        if known.spec.in_a_row is not None and not known.samples:
            rows = [known.spec.in_a_row(problem) for problem in problems]
            if all(name in self.kernels for row in rows for _, name in row):
                return tuple(one_after_the_other([self.predict(stage, name) for stage, name in row]) for row in rows)
        estimate = known.estimate(problems, self.limits)
        columns = (np.exp(estimate.log_time), np.exp(estimate.low), np.exp(estimate.high))
        return tuple(
            Prediction(median_s=median, low_s=low, high_s=high, bound=RESOURCES[resource], extrapolated=outside)
            for median, low, high, resource, outside in zip(
                *(column.tolist() for column in columns),
                estimate.resource.tolist(),
                estimate.extrapolated.tolist(),
                strict=True,
            )
        )

    def predict_pairs(self, pairs: Sequence[tuple[Problem, str]]) -> tuple[Prediction, ...]:
        """Times of problems, each under a kernel of its own; see `predict_many`."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, (_, kernel) in enumerate(pairs):
            rows[kernel].append(row)
        found = {
            row: prediction
            for kernel, numbers in rows.items()
            for row, prediction in zip(
                numbers, self.predict_many([pairs[row][0] for row in numbers], kernel), strict=True
            )
        }
        return tuple(found[row] for row in range(len(pairs)))

    def waits_s(self, problems: Sequence[Problem], kernel: str, network_bytes: float) -> Floats:
        """What a kernel waits longer in a network than by itself, [problems] in seconds: for weights and activations.

        Parameters
        ----------
        network_bytes : float
            Bytes touched between two calls of the layer.
        """
        model = self.kernels[kernel]
        weights_s = refetch_s(problems, model, self.limits, network_bytes)
        return self.network.refetch_frac * weights_s + self.network.handover_frac * handover_s(
            problems, model, self.limits
        )

    def predict_between(self, operation: str, bytes_moved: float) -> Prediction:
        """Time of an operation between the layers of a compiled network; see `predict_elementwise`."""
        alone, scale = self.predict_elementwise(operation, bytes_moved), self.network.between_scale
        return replace(alone, median_s=scale * alone.median_s, low_s=scale * alone.low_s, high_s=scale * alone.high_s)

    def predict_elementwise(self, operation: str, bytes_moved: float) -> Prediction:
        """Time of an element-wise operation by itself that reads and writes `bytes_moved` bytes.

        Operations that were not measured follow the line through all that were.
        """
        known = operation in self.elementwise
        line = self.elementwise[operation if known else GENERAL]
        overhead_s, memory_s = line.times(np.array([bytes_moved], dtype=float), self.limits, self.threads)
        log_time = float(np.log(overhead_s[0] + memory_s[0]))
        outside = max(float(np.log(max(bytes_moved, 1.0) / line.largest_bytes)), 0.0) if line.largest_bytes else 0.0
        low, high = line.interval.widened(np.array([1.0 + WIDENING * outside]))
        return Prediction(
            median_s=float(np.exp(log_time)),
            low_s=float(np.exp(log_time + low[0])),
            high_s=float(np.exp(log_time + high[0])),
            bound="memory" if memory_s[0] >= overhead_s[0] else "overhead",
            extrapolated=not known or outside > 0.0,
        )
