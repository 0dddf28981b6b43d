"""Fitting against a synthetic machine whose truth is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from synthetic_machine import (
    SPARSE,
    UNMEASURED,
    Truth,
    elementwise_samples,
    profile_of,
    random_problems,
    samples_of,
    synthetic_kernel,
)

from sparseplan.kernels.errors import InputError
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.interval import UNKNOWN
from sparseplan.perfmodel.kernel_model import domain_of
from sparseplan.perfmodel.limits import limits_of
from sparseplan.perfmodel.predict import PerformanceModel
from sparseplan.perfmodel.terms import roofline_terms


def _model(truth: Truth, count: int = 120) -> PerformanceModel:
    problems = random_problems(count, seed=1)
    samples = samples_of(problems, truth.times(problems, seed=2).tolist(), SPARSE.name)
    return fit_performance_model(profile_of(samples), (SPARSE, UNMEASURED))


def test_recovers_a_noiseless_roofline_within_a_few_per_cent() -> None:
    truth = Truth()
    fresh = random_problems(200, seed=3)
    predicted = np.array([answer.median_s for answer in _model(truth).predict_many(fresh, SPARSE.name)])
    error = np.abs(np.log(predicted / truth.times(fresh, seed=4)))
    assert np.median(error) < 0.02
    assert np.quantile(error, 0.95) < 0.06


def test_a_residual_is_kept_where_the_shape_matters() -> None:
    truth = Truth(shape_effect=0.4, noise=0.03)
    model = _model(truth)
    fitted = model.kernels[SPARSE.name]
    assert fitted.residual is not None
    roofline_only = replace(model, kernels={SPARSE.name: replace(fitted, residual=None)})
    fresh = random_problems(200, seed=5)
    exact = truth.times(fresh, seed=6)

    def error(candidate: PerformanceModel) -> float:
        predicted = np.array([answer.median_s for answer in candidate.predict_many(fresh, SPARSE.name)])
        return float(np.median(np.abs(np.log(predicted / exact))))

    assert error(model) < 0.6 * error(roofline_only)


def test_no_residual_is_kept_for_pure_noise() -> None:
    assert _model(Truth(noise=0.1)).kernels[SPARSE.name].residual is None


@pytest.mark.parametrize("truth", [Truth(noise=0.05), Truth(noise=0.2), Truth(shape_effect=0.4, noise=0.05)])
def test_intervals_cover_ninety_per_cent_of_fresh_layers(truth: Truth) -> None:
    fresh = random_problems(600, seed=7)
    exact = truth.times(fresh, seed=8)
    answers = _model(truth, count=200).predict_many(fresh, SPARSE.name)
    covered = np.mean([answer.low_s <= time_s <= answer.high_s for answer, time_s in zip(answers, exact, strict=True)])
    assert 0.84 <= covered <= 0.97


def test_intervals_are_as_narrow_as_the_noise_allows() -> None:
    answers = _model(Truth(noise=0.05), count=200).predict_many(random_problems(50, seed=9), SPARSE.name)
    widths = [np.log(answer.high_s / answer.low_s) for answer in answers if not answer.extrapolated]
    assert np.median(widths) < 1.5 * 2 * 1.645 * 0.05


def test_time_never_rises_with_sparsity() -> None:
    model = _model(Truth(shape_effect=0.4, noise=0.1))
    for problem in random_problems(20, seed=10):
        curve = [problem.with_sparsity("unstructured", sparsity) for sparsity in np.linspace(0.0, 0.99, 40)]
        times = [answer.median_s for answer in model.predict_many(curve, SPARSE.name)]
        assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(times))


def test_outliers_do_not_move_the_fit() -> None:
    truth = Truth()
    problems = random_problems(120, seed=1)
    times = truth.times(problems, seed=2)
    times[::12] *= 20.0
    model = fit_performance_model(profile_of(samples_of(problems, times.tolist(), SPARSE.name)), (SPARSE,))
    fresh = random_problems(100, seed=3)
    predicted = np.array([answer.median_s for answer in model.predict_many(fresh, SPARSE.name)])
    assert np.median(np.abs(np.log(predicted / truth.times(fresh, seed=4)))) < 0.1


def test_a_kernel_without_samples_gets_a_wide_extrapolated_prediction() -> None:
    (problem,) = random_problems(1, seed=11)
    model = _model(Truth())
    unmeasured = model.predict(problem, UNMEASURED.name)
    measured = model.predict(problem, SPARSE.name)
    assert unmeasured.extrapolated
    assert unmeasured.high_s / unmeasured.low_s > 10 > measured.high_s / measured.low_s
    assert unmeasured.low_s < measured.median_s < unmeasured.high_s


def test_a_kernel_with_few_samples_borrows_the_residuals_of_its_family() -> None:
    truth = Truth(noise=0.2)
    many, few = random_problems(120, seed=1), random_problems(3, seed=12)
    samples = samples_of(many, truth.times(many, seed=2).tolist(), SPARSE.name)
    samples += samples_of(few, truth.times(few, seed=13).tolist(), UNMEASURED.name)
    model = fit_performance_model(profile_of(samples), (SPARSE, UNMEASURED))
    own, borrowed = (model.kernels[name].interval for name in (SPARSE.name, UNMEASURED.name))
    assert borrowed.high - borrowed.low == pytest.approx(own.high - own.low, rel=0.5)


def test_disturbed_measurements_do_not_widen_the_interval() -> None:
    truth = Truth(noise=0.05)
    problems = random_problems(120, seed=1)
    times = truth.times(problems, seed=2)
    quiet = samples_of(problems, times.tolist(), SPARSE.name)
    disturbed = tuple(
        sample.model_copy(
            update={"time_s": sample.time_s.model_copy(update={"median": 30 * time_s, "high": 60 * time_s})}
        )
        for sample, time_s in zip(quiet[::4], times[::4], strict=True)
    )
    kept = tuple(sample for index, sample in enumerate(quiet) if index % 4)
    model = fit_performance_model(profile_of(kept + disturbed), (SPARSE,))
    interval = model.kernels[SPARSE.name].interval
    assert interval.high - interval.low < 0.5


def test_one_layer_alone_gives_no_held_out_residuals() -> None:
    problems = [random_problems(1, seed=1)[0].with_sparsity("unstructured", s) for s in np.linspace(0.3, 0.9, 30)]
    samples = samples_of(problems, Truth().times(problems, seed=2).tolist(), SPARSE.name)
    fitted = fit_performance_model(profile_of(samples), (SPARSE,)).kernels[SPARSE.name]
    assert np.isnan(fitted.held_out_error)
    assert fitted.interval == UNKNOWN


def test_far_outside_what_was_measured_is_marked_and_wider() -> None:
    model = _model(Truth(noise=0.05))
    (inside,) = random_problems(1, seed=1)
    outside = replace(inside, n=4096)
    near, far = model.predict(inside, SPARSE.name), model.predict(outside, SPARSE.name)
    assert not near.extrapolated
    assert far.extrapolated
    assert far.high_s / far.low_s > 1.3 * near.high_s / near.low_s


def test_unmeasured_threads_count_as_extrapolation() -> None:
    model = _model(Truth())
    (inside,) = random_problems(1, seed=1)
    assert model.predict(replace(inside, threads=1), SPARSE.name).extrapolated


def test_unmeasured_patterns_do_where_the_kernel_skips_groups() -> None:
    problems, limits = random_problems(40, seed=1), limits_of(profile_of(()))
    other = tuple(replace(problem, pattern="filter2d") for problem in problems)
    for patterns, is_outside in ((("unstructured",), False), (("block", "filter2d"), True)):
        spec = synthetic_kernel("conv2d_some_f32_synthetic", patterns=patterns)
        terms = roofline_terms(problems, spec, limits)
        distance = domain_of(spec, problems, terms).distance(other, terms)
        assert (distance > 0.0).all() == is_outside


def test_binding_resource_follows_the_work() -> None:
    model = _model(Truth())
    (base,) = random_problems(1, seed=1)
    tiny = replace(base, n=1, c_in=8, c_out=8, h_in=4, w_in=4, sparsity=0.95)
    heavy = replace(base, n=32, c_in=256, c_out=256, h_in=28, w_in=28, kernel=(3, 3), padding=(1, 1), sparsity=0.5)
    thin = replace(base, n=32, c_in=256, c_out=256, h_in=32, w_in=32, kernel=(1, 1), padding=(0, 0), sparsity=0.99)
    bounds = [model.predict(problem, SPARSE.name).bound for problem in (tiny, heavy, thin)]
    assert bounds == ["overhead", "arithmetic", "memory"]


def test_many_predictions_equal_single_ones_and_none_is_none() -> None:
    model = _model(Truth(shape_effect=0.3))
    problems = random_problems(5, seed=14)
    many = model.predict_many(problems, SPARSE.name)
    for problem, answer in zip(problems, many, strict=True):
        assert model.predict(problem, SPARSE.name).median_s == pytest.approx(answer.median_s)
    assert model.predict_many((), SPARSE.name) == ()


def test_pairs_of_problem_and_kernel_are_answered_in_their_order() -> None:
    model = _model(Truth())
    pairs = [(problem, kernel) for problem in random_problems(3, seed=15) for kernel in (SPARSE.name, UNMEASURED.name)]
    assert model.predict_pairs(pairs) == tuple(model.predict(problem, kernel) for problem, kernel in pairs)


def test_an_unknown_kernel_is_named() -> None:
    with pytest.raises(InputError, match=r"conv2d_nonsense.*synthetic"):
        _model(Truth()).predict(random_problems(1, seed=1)[0], "conv2d_nonsense")


def test_a_profile_without_a_ceiling_is_refused() -> None:
    profile = profile_of(())
    lacking = profile.model_copy(
        update={"ceilings": tuple(c for c in profile.ceilings if c.name != "flop_per_s:fma_f32")}
    )
    with pytest.raises(InputError, match="flop_per_s:fma_f32"):
        fit_performance_model(lacking, (SPARSE,))


def test_elementwise_operations_follow_their_own_line() -> None:
    model = fit_performance_model(profile_of((), elementwise_samples(0.6, 2.0)), (SPARSE,))
    for sample in elementwise_samples(0.6, 2.0):
        answer = model.predict_elementwise(sample.operation, sample.bytes_moved)
        assert answer.median_s == pytest.approx(sample.time_s.median, rel=0.05)
        assert not answer.extrapolated
    assert model.predict_elementwise("relu", 1e3).bound == "overhead"
    assert model.predict_elementwise("relu", 1e9).bound == "memory"
    assert model.predict_elementwise("relu", 1e10).extrapolated


def test_unknown_operations_follow_the_line_through_all() -> None:
    model = fit_performance_model(profile_of((), elementwise_samples(0.6, 2.0)), (SPARSE,))
    answer = model.predict_elementwise("softplus", 2.0**24)
    relu, add = (model.predict_elementwise(name, 2.0**24) for name in ("relu", "add"))
    assert relu.median_s < answer.median_s < add.median_s
    assert answer.extrapolated
    bare = fit_performance_model(profile_of(()), (SPARSE,)).predict_elementwise("relu", 2.0**24)
    assert bare.low_s < relu.median_s < bare.high_s
    assert bare.extrapolated
