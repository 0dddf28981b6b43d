"""Layers that were measured themselves: between their samples the machine has spoken, and the model only listens.

A *curve* is one layer under one pattern, measured at several sparsities. On a curve the time is interpolated over the
executed work; beyond its ends the model's own slope goes on from the last measurement. The error of this is far
smaller than that on a layer never seen, and it is learned the same way: by leaving samples out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.pattern import DENSE
from ..kernels.problem import Problem
from .interval import LogInterval, conformal_interval
from .limits import Floats

REPEAT_ERROR = 0.05
"""By how much a median moves from one process to the next, in logarithms of time: half of 142 sparse convolutions
moved by less (measured in three processes on an otherwise idle two-core virtual machine)."""
MOST_NOISE_FRAC = 1.0
"""A measurement whose median is less certain than this anchors nothing."""
ENOUGH_TO_LEAVE_OUT = 3
SLOPE_ERROR = 0.1
"""Growth of the interval for each factor of e in work from the nearest sample: an exponent between 0.9 and 1.1 of time
over work stays inside (assumed; where samples could be left out, they decide)."""
REACH = float(np.log(2.0))
"""Beyond the ends of a curve by more than this factor of work, a prediction is as uncertain as on an unseen layer."""

CurveKey = tuple[Problem, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """Samples of one layer, pattern and kernel: executed share of the work against time, both as logarithms.

    Attributes
    ----------
    log_work : array
        [samples], increasing.
    log_time : array
        [samples], not decreasing: more work that took less time is noise, and is evened out.
    log_base : array
        [samples], what the model says without the measurements.
    noise : float
        Half the width of the intervals of the samples' medians, relative, on average.
    """

    log_work: Floats
    log_time: Floats
    log_base: Floats
    noise: float

    def log_time_at(self, log_work: float, log_base: float) -> float:
        """Interpolated time; `log_base` is the model's own answer there, whose slope is followed outside the curve."""
        if log_work <= self.log_work[0]:
            return float(min(self.log_time[0], log_base + self.log_time[0] - self.log_base[0]))
        if log_work >= self.log_work[-1]:
            return float(max(self.log_time[-1], log_base + self.log_time[-1] - self.log_base[-1]))
        return float(np.interp(log_work, self.log_work, self.log_time))

    def reaches(self, log_work: float) -> bool:
        """Whether the curve is near enough for its own, narrow interval."""
        return bool(self.log_work[0] - REACH <= log_work <= self.log_work[-1] + REACH)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anchors:
    """All curves of one kernel, and what leaving samples out of them taught.

    Attributes
    ----------
    left_out : LogInterval
        Of a sample between others that its curve was not shown; no width where no curve has enough samples.
    """

    curves: Mapping[CurveKey, Curve]
    left_out: LogInterval

    def curve_of(self, problem: Problem) -> Curve | None:
        """The curve of a problem's layer and pattern, if they were measured."""
        return self.curves.get(curve_key(problem))

    def interval(self, curve: Curve, log_work: float) -> LogInterval:
        """Interval of a prediction on a curve: of interpolation or of measuring again, whichever is wider."""
        again = REPEAT_ERROR + curve.noise + SLOPE_ERROR * float(np.abs(curve.log_work - log_work).min())
        return LogInterval(low=min(self.left_out.low, -again), high=max(self.left_out.high, again))


NO_ANCHORS = Anchors(curves={}, left_out=LogInterval(low=0.0, high=0.0))


def curve_key(problem: Problem) -> CurveKey:
    """What the samples of one curve share: all of the problem but its sparsity."""
    return problem.as_dense(), problem.pattern


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnchorSamples:
    """Samples of one kernel, arrays over samples: logarithms of the executed share of the work, of the measured time
    and of the model's time, and the relative uncertainty of the measurement."""

    problems: Sequence[Problem]
    log_work: Floats
    log_time: Floats
    log_base: Floats
    noise_frac: Floats

    def curve(self, rows: Sequence[int]) -> Curve:
        """The curve of some of the samples, all of one layer and pattern."""
        order = np.asarray(rows)[np.argsort(self.log_work[list(rows)], kind="stable")]
        return Curve(
            log_work=self.log_work[order],
            log_time=np.maximum.accumulate(self.log_time[order]),
            log_base=self.log_base[order],
            noise=float(self.noise_frac[order].mean()) / 2.0,
        )


def anchors_of(samples: AnchorSamples) -> Anchors:
    """Curves of a kernel's samples, those too noisy to anchor anything left out.

    Only samples between others tell how well a curve interpolates; its ends are not left out.
    """
    rows: dict[CurveKey, list[int]] = defaultdict(list)
    for row, problem in enumerate(samples.problems):
        if samples.noise_frac[row] <= MOST_NOISE_FRAC:
            rows[curve_key(problem)].append(row)
    errors = [
        samples.log_time[row]
        - samples.curve([other for other in taken if other != row]).log_time_at(
            samples.log_work[row], samples.log_base[row]
        )
        for (_, pattern), taken in rows.items()
        if pattern != DENSE.text and len(taken) >= ENOUGH_TO_LEAVE_OUT
        for row in sorted(taken, key=lambda row: samples.log_work[row])[1:-1]
    ]
    return Anchors(
        curves={key: samples.curve(taken) for key, taken in rows.items()},
        left_out=conformal_interval(np.array(errors)) if errors else NO_ANCHORS.left_out,
    )
