"""Speedup against sparsity of a layer's kernels, as the performance model predicts it, with the break-even point."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..kernels.pattern import parse_pattern
from ..kernels.problem import Problem
from ..perfmodel.break_even import GRID, break_even_sparsity
from ..perfmodel.predict import PerformanceModel
from ..perfmodel.schema import Interval
from ..planner.schema import Candidate, LayerPlan, Plan

_MAX_LAYERS = 6
_MAX_CURVES_PER_LAYER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedupCurve:
    """Predicted speedup of one kernel in one layer over the layer's best dense kernel.

    Attributes
    ----------
    sparsity : tuple of float
        Ascending shares of zero weights; a single one where the pattern dictates it.
    speedup, low, high : tuple of float
        Ratio at each sparsity: median and 90 % interval.
    break_even : float or None
        Sparsity from which on the kernel is predicted to beat the dense one, None where it never does.
    """

    layer: str
    kernel: str
    pattern: str
    sparsity: tuple[float, ...]
    speedup: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    break_even: float | None


def speedup_curves(plan: Plan, model: PerformanceModel) -> tuple[SpeedupCurve, ...]:
    """Curves of the plan's heaviest layers, different in their work, with the patterns considered for each."""
    return tuple(
        _curve(layer, candidate, model) for layer in _representative(plan) for candidate in _best_by_pattern(layer)
    )


def _representative(plan: Plan) -> list[LayerPlan]:
    heaviest = sorted(plan.layers, key=lambda layer: -layer.dense.time_s.median * layer.calls)
    by_work: dict[Problem, LayerPlan] = {}
    for layer in heaviest:
        if _best_by_pattern(layer):
            by_work.setdefault(replace(layer.problem.as_dense(), dtype="float32"), layer)
    chosen = {layer.name for layer in list(by_work.values())[:_MAX_LAYERS]}
    return [layer for layer in plan.layers if layer.name in chosen]


def _best_by_pattern(layer: LayerPlan) -> list[Candidate]:
    """The chosen candidate, then the fastest of each other sparse pattern."""
    fastest = sorted(layer.considered, key=lambda candidate: candidate.time_s.median)
    by_pattern: dict[str, Candidate] = {}
    for candidate in (layer.chosen, *fastest):
        if candidate.pattern != "dense":
            by_pattern.setdefault(candidate.pattern, candidate)
    return list(by_pattern.values())[:_MAX_CURVES_PER_LAYER]


def _curve(layer: LayerPlan, candidate: Candidate, model: PerformanceModel) -> SpeedupCurve:
    dense_problem = layer.problem.as_dense()
    (dense,) = model.predict_many([replace(dense_problem, dtype=layer.dense.dtype)], layer.dense.kernel)
    fixed = parse_pattern(candidate.pattern).fixed_sparsity
    sparsities = (0.0, *GRID.tolist()) if fixed is None else (fixed,)
    problem = replace(dense_problem, dtype=candidate.dtype)
    sparse = model.predict_many(
        [problem.with_sparsity(candidate.pattern, sparsity) for sparsity in sparsities], candidate.kernel
    )
    speedups = [_speedup(dense.interval, prediction.interval) for prediction in sparse]
    return SpeedupCurve(
        layer=layer.name,
        kernel=candidate.kernel,
        pattern=candidate.pattern,
        sparsity=sparsities,
        speedup=tuple(speedup.median for speedup in speedups),
        low=tuple(speedup.low for speedup in speedups),
        high=tuple(speedup.high for speedup in speedups),
        break_even=break_even_sparsity(model, problem, candidate.pattern, candidate.kernel, dense.median_s),
    )


def _speedup(dense_s: Interval, sparse_s: Interval) -> Interval:
    """Ratio of two predictions whose errors are taken as independent: their logarithms add in squares."""
    median = dense_s.median / sparse_s.median
    down = math.hypot(math.log(dense_s.median / dense_s.low), math.log(sparse_s.high / sparse_s.median))
    up = math.hypot(math.log(dense_s.high / dense_s.median), math.log(sparse_s.median / sparse_s.low))
    return Interval(median=median, low=median * math.exp(-down), high=median * math.exp(up))
