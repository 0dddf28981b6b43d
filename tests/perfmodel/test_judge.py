"""Judging predictors: figures worked out by hand on cases whose truth is known."""

import math
from dataclasses import replace

import pytest
from synthetic_machine import profile_of

from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.perfmodel.baselines import baselines_of
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.judge import EVERYTHING, MODEL, REPEATED, Case, judge
from sparseplan.perfmodel.schema import Quality
from sparseplan.profiles.schema import KernelSample
from sparseplan.profiles.timing import TimeStats

SPARSE_KERNEL, DENSE_KERNEL = "conv2d_unstructured_f32_n4__baseline", "conv2d_dense_f32_nchw__torch"
LAYER = Problem(
    op="conv2d", n=4, c_in=64, c_out=64, h_in=16, w_in=16, kernel=(3, 3), padding=(1, 1), pattern="unstructured",
    sparsity=0.9, threads=2,
)  # fmt: skip


def sample(problem: Problem, kernel: str, time_s: float) -> KernelSample:
    stats = TimeStats(median=time_s, low=time_s * 0.99, high=time_s * 1.01, n=20)
    return KernelSample(problem=problem, kernel=kernel, time_s=stats, pack_time_s=0.0, noisy=False)


def case(sparse_s: float, dense_s: float, *, c_out: int = 64) -> Case:
    problem = replace(LAYER, c_out=c_out)
    samples = (sample(problem, SPARSE_KERNEL, sparse_s), sample(problem, DENSE_KERNEL, dense_s))
    return Case(problem=problem, samples=samples, dense=frozenset({DENSE_KERNEL}))


class Says:
    """A predictor that knows two numbers."""

    def __init__(self, sparse_s: float, dense_s: float) -> None:
        self.known = {SPARSE_KERNEL: sparse_s, DENSE_KERNEL: dense_s}

    def times(self, problems: list[Problem], kernel: str) -> list[float]:
        assert all((problem.pattern == "dense") == (kernel == DENSE_KERNEL) for problem in problems)
        return [self.known[kernel] for _ in problems]


def quality_of(cases: list[Case], predictor: Says) -> Quality:
    model = fit_performance_model(profile_of(()), REGISTRY)
    found = judge(cases, model, {"says": predictor})
    return next(row.quality for row in found if (row.predictor, row.family) == ("says", EVERYTHING))


def test_errors_are_of_sparse_kernels_against_the_measured_time() -> None:
    quality = quality_of([case(1.0, 3.0), case(1.04, 3.0), case(1.25, 3.0)], Says(1.0, 2.0))
    assert quality.predictions == 3
    assert quality.median_error_frac == pytest.approx(1.0 - 1.0 / 1.04)
    assert quality.mean_error_frac == pytest.approx((0.0 + (1.0 - 1.0 / 1.04) + 0.2) / 3)
    assert quality.bias_frac == pytest.approx(0.04)
    assert quality.within_5_frac == pytest.approx(2 / 3)
    assert quality.within_10_frac == pytest.approx(2 / 3)
    assert quality.coverage_frac is None


def test_decisions_near_equality_do_not_count() -> None:
    quality = quality_of([case(1.0, 2.0), case(2.0, 1.0), case(1.0, 1.04)], Says(1.0, 2.0))
    assert quality.decisions == 2
    assert quality.decisions_right_frac == pytest.approx(0.5)


def test_regret_is_what_the_wrong_kernel_costs() -> None:
    quality = quality_of([case(1.0, 2.0), case(3.0, 2.0)], Says(1.0, 2.0))
    assert quality.regret_frac == pytest.approx((0.0 + 0.5) / 2)


def test_rank_correlation_sees_the_order_alone() -> None:
    class Doubles(Says):
        def times(self, problems: list[Problem], kernel: str) -> list[float]:
            return [2.0 * problem.c_out for problem in problems]

    cases = [case(float(width), 5e3, c_out=width) for width in (16, 32, 64, 128)]
    assert quality_of(cases, Doubles(0.0, 0.0)).spearman == pytest.approx(1.0)


def test_the_model_is_judged_with_its_intervals_and_by_family() -> None:
    model = fit_performance_model(profile_of(()), REGISTRY)
    foreseen = model.predict(LAYER, SPARSE_KERNEL)
    inside, outside = case(foreseen.median_s, 1.0), case(foreseen.high_s * 1.01, 1.0)
    rows = judge([inside, outside], model, {})
    assert [(row.predictor, row.family) for row in rows] == [
        (MODEL, "conv2d float32 unstructured"),
        (MODEL, EVERYTHING),
    ]
    assert {row.quality.coverage_frac for row in rows} == {0.5}
    assert rows[0].quality.width_frac == pytest.approx((foreseen.high_s - foreseen.low_s) / foreseen.median_s)


def test_dense_problems_judge_dense_kernels() -> None:
    dense = LAYER.as_dense()
    only = Case(problem=dense, samples=(sample(dense, DENSE_KERNEL, 4.0),), dense=frozenset({DENSE_KERNEL}))
    quality = quality_of([only], Says(1.0, 5.0))
    assert quality.mean_error_frac == pytest.approx(0.25)
    assert quality.decisions == 0
    assert quality.decisions_right_frac is None


def test_baselines_know_what_the_profile_holds() -> None:
    samples = (sample(LAYER, SPARSE_KERNEL, 2e-3), sample(replace(LAYER, c_out=512), SPARSE_KERNEL, 3e-3))
    baselines = baselines_of(profile_of(()).model_copy(update={"samples": samples}))
    rates = sorted([LAYER.flop_useful / 2e-3, 8 * LAYER.flop_useful / 3e-3])
    (flop_s,) = baselines["flop only"].times([LAYER], SPARSE_KERNEL)
    assert flop_s == pytest.approx(LAYER.flop_useful / (sum(rates) / 2))
    (nearest_s,) = baselines["nearest neighbour"].times([replace(LAYER, sparsity=0.8)], SPARSE_KERNEL)
    assert nearest_s == pytest.approx(2 * 2e-3)
    (naive_s,) = baselines["naive roofline"].times([LAYER], SPARSE_KERNEL)
    assert naive_s >= LAYER.flop_useful / 2e11
    assert not math.isnan(naive_s)
    for baseline in baselines.values():
        assert baseline.times([LAYER], "linear_dense_f32_nchw__torch")[0] > 0.0


def test_the_first_take_foretells_the_later_ones() -> None:
    first, *later = (case(sparse_s, 3.0) for sparse_s in (1.0, 1.2, 1.3))
    pooled = replace(first, takes=tuple(each.samples for each in (first, *later)))
    model = fit_performance_model(profile_of(()), REGISTRY)
    rows = judge([pooled], model, {})
    (quality,) = (row.quality for row in rows if (row.predictor, row.family) == (REPEATED, EVERYTHING))
    assert quality.median_error_frac == pytest.approx(1.0 - 1.0 / 1.25)
    assert (quality.decisions, quality.decisions_right_frac, quality.regret_frac) == (1, 1.0, 0.0)
    assert quality.coverage_frac is None
