"""The fitted model of one kernel: roofline, residual, interval, and where it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.problem import Problem
from ..kernels.spec import KernelSpec
from .anchors import NO_ANCHORS, Anchors
from .difficulty import EQUAL, Difficulty
from .features import difficulty_features, shape_features
from .interval import LogInterval
from .limits import Floats, Limits
from .residual import Residual
from .roofline import Roofline, combine, roofline_times
from .terms import Terms, roofline_terms

EDGE = float(np.log(1.25))
"""Outside the measured range by more than this (in logarithms of a size) is extrapolation."""
WIDENING = 1.0
"""Growth of the interval for each factor of e outside the measured range."""
UNSEEN_KIND = 1.0
"""Distance that an unmeasured pattern or thread count counts for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Domain:
    """Where a kernel was measured: ranges of the shape features and of the executed share of the work.

    `patterns` is None for a dense kernel, to which zeros are numbers, and for one that skips each zero by itself.
    """

    low: Floats
    high: Floats
    patterns: frozenset[str] | None
    threads: frozenset[int]

    def distance(self, problems: Sequence[Problem], terms: Terms) -> Floats:
        """[problems]: how far outside, in logarithms; 0 inside."""
        points = _coordinates(problems, terms)
        outside = np.maximum(np.maximum(self.low - points, points - self.high), 0.0).max(axis=1)
        unseen = np.array([not self._knows(problem) for problem in problems])
        return np.where(outside > EDGE, outside, 0.0) + UNSEEN_KIND * unseen

    def _knows(self, problem: Problem) -> bool:
        return problem.threads in self.threads and (self.patterns is None or problem.pattern in self.patterns)


def domain_of(spec: KernelSpec, problems: Sequence[Problem], terms: Terms) -> Domain:
    """Ranges that the samples of a kernel span."""
    points = _coordinates(problems, terms)
    return Domain(
        low=points.min(axis=0),
        high=points.max(axis=0),
        patterns=None
        if {"dense", "unstructured"} & set(spec.patterns)
        else frozenset(problem.pattern for problem in problems),
        threads=frozenset(problem.threads for problem in problems),
    )


def _coordinates(problems: Sequence[Problem], terms: Terms) -> Floats:
    return np.column_stack([shape_features(problems), np.log(terms.work_frac)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Arrays over problems: log of the median time, binding resource, interval of the logarithm, extrapolated."""

    log_time: Floats
    resource: np.ndarray
    low: Floats
    high: Floats
    extrapolated: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KernelModel:
    """How long one kernel takes.

    Attributes
    ----------
    residual : Residual or None
        Only where it lowered the held-out error.
    domain : Domain or None
        None for a kernel that was never measured.
    held_out_error : float
        Median of |log(measured / predicted)| on layers that were held out; NaN without samples.
    interval : LogInterval
        Of log(measured / predicted), in units of `difficulty`'s factor.
    anchors : Anchors
        Layers that were measured themselves; on them the measurements speak, not the fit.
    difficulty : Difficulty
        Shared by all kernels.
    """

    spec: KernelSpec
    roofline: Roofline
    residual: Residual | None
    interval: LogInterval
    domain: Domain | None
    samples: int
    held_out_error: float
    anchors: Anchors = NO_ANCHORS
    difficulty: Difficulty = EQUAL

    def base_log_time(self, problems: Sequence[Problem], terms: Terms) -> tuple[Floats, np.ndarray]:
        """[problems]: logarithm of the time by roofline and residual alone, and the binding resource."""
        times_s = roofline_times(terms, self.roofline)
        log_time = np.log(combine(times_s, self.roofline))
        if self.residual is not None:
            log_time = log_time + self.residual.predict(shape_features(problems))
        return log_time, times_s.argmax(axis=0)

    def estimate(self, problems: Sequence[Problem], limits: Limits) -> Estimate:
        """Predict a sequence of problems at once."""
        terms = roofline_terms(problems, self.spec, limits)
        log_time, resource = self.base_log_time(problems, terms)
        if self.domain is None:
            distance = np.full(len(problems), UNSEEN_KIND)
            low, high = self.interval.widened(np.ones(len(problems)))
        else:
            distance = self.domain.distance(problems, terms)
            factor = self.difficulty.factor(hardness(problems, terms, self.roofline))
            low, high = self.interval.widened(factor * (1.0 + WIDENING * distance))
        for row, (problem, log_work) in enumerate(zip(problems, np.log(terms.work_frac).tolist(), strict=True)):
            curve = self.anchors.curve_of(problem)
            if curve is None:
                continue
            log_time[row] = curve.log_time_at(log_work, float(log_time[row]))
            if curve.reaches(log_work):
                interval = self.anchors.interval(curve, log_work)
                low[row], high[row], distance[row] = interval.low, interval.high, 0.0
        return Estimate(
            log_time=log_time,
            resource=resource,
            low=log_time + low,
            high=log_time + high,
            extrapolated=distance > 0.0,
        )


def hardness(problems: Sequence[Problem], terms: Terms, roofline: Roofline) -> Floats:
    """[problems, features] that tell how uncertain a prediction of a roofline is."""
    times_s = roofline_times(terms, roofline)
    return difficulty_features(shape_features(problems), times_s, combine(times_s, roofline))
