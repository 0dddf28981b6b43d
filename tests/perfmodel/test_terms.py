"""Roofline terms and the limits they come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_machine import SPARSE, profile_of

from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.limits import limits_of
from sparseplan.perfmodel.roofline import (
    LEAST,
    MOST,
    PRIOR,
    Roofline,
    combine,
    from_vector,
    gradient,
    roofline_times,
    to_vector,
)
from sparseplan.perfmodel.terms import ONE_BY_ONE_S, START_S, roofline_terms

LIMITS = limits_of(profile_of(()))
ONE = np.array([1.0])


def test_flat_inside_a_level_and_falling_between() -> None:
    sizes = np.array([1e3, 16e3, 300e3, 4e6, 1e9])
    rates = LIMITS.bandwidth(sizes, np.ones(5))
    assert rates == pytest.approx([4e11, 4e11, 2e11, 5e10, 1e10], rel=0.01)
    curve = LIMITS.bandwidth(np.geomspace(1e3, 1e9, 200), np.ones(200))
    assert (np.diff(np.log(curve)) <= 1e-9).all()


def test_rates_grow_with_threads_and_interpolate() -> None:
    assert LIMITS.flop_rate("fma_f32", np.array([1.0, 1.5, 2.0])) == pytest.approx([1e11, 1.5e11, 2e11])
    assert LIMITS.flop_rate("dot_bf16", ONE) == pytest.approx([1e11])


def test_terms_of_a_problem_by_hand() -> None:
    problem = Problem(op="conv2d", n=1, c_in=16, c_out=48, h_in=8, w_in=8, threads=2)
    terms = roofline_terms((problem,), SPARSE, LIMITS)
    # Three tasks on two threads take two rounds: 1.5 threads are busy.
    assert terms.arithmetic_s[0] == pytest.approx(problem.flop_dense_equiv / 1.5e11)
    assert terms.overhead_s[0] == pytest.approx(2e-6 + 2e-6)
    moved = problem.input_bytes + problem.output_bytes + 2 * problem.weight_bytes
    assert terms.memory_s[0] == pytest.approx(moved / (1.5 * 4e11), rel=0.2)
    assert terms.work_frac[0] == 1.0


def test_smooth_maximum_lies_between_maximum_and_sum() -> None:
    times = np.array([[1.0], [0.5], [0.2], [0.1], [0.3]])
    total = combine(times, PRIOR)[0]
    # The overhead and the copies, and between the largest of the others and their sum.
    assert 0.4 + 1.0 < total < 0.4 + 1.7


def test_vectors_round_trip() -> None:
    for roofline in (LEAST, PRIOR, MOST):
        again = from_vector(to_vector(roofline))
        assert to_vector(again) == pytest.approx(to_vector(roofline))


@pytest.mark.parametrize("roofline", [PRIOR, replace(PRIOR, sharpness=1.0, thinning=0.0), replace(PRIOR, thinning=0.5)])
def test_gradient_is_that_of_the_logarithm_of_time(roofline: Roofline) -> None:
    problems = [
        Problem(op="conv2d", n=n, c_in=64, c_out=64, h_in=14, w_in=14, pattern="unstructured", sparsity=sparsity)
        for n, sparsity in ((1, 0.5), (8, 0.9), (64, 0.97))
    ]
    plain = roofline_terms(problems, SPARSE, LIMITS)
    # Each kind of term must be seen, whatever this kernel counts.
    terms = replace(plain, **dict.fromkeys(("starts_s", "copying_s", "dealing_s"), 0.2 * plain.arithmetic_s))

    def log_time(vector: np.ndarray) -> np.ndarray:
        there = from_vector(vector)
        return np.log(combine(roofline_times(terms, there), there))

    found = gradient(terms, roofline)
    at, step = to_vector(roofline), 1e-6
    for column, unit in enumerate(step * np.eye(len(at))):
        slope = (log_time(at + unit) - log_time(at - unit)) / (2.0 * step)
        assert found[:, column] == pytest.approx(slope, abs=1e-7, rel=1e-5)
    assert (np.abs(found).max(axis=0) > 1e-4).all()


def test_thinning_slows_sparser_work_but_never_beyond_denser() -> None:
    problems = [
        Problem(op="conv2d", n=8, c_in=64, c_out=64, h_in=14, w_in=14, pattern="unstructured", sparsity=sparsity)
        for sparsity in (0.5, 0.9)
    ]
    times = roofline_times(roofline_terms(problems, SPARSE, LIMITS), PRIOR)
    assert times[0, 1] < times[0, 0]
    assert times[0, 1] > 0.2 * times[0, 0]


def test_copies_single_values_and_loop_starts_by_hand() -> None:
    problem = Problem(op="conv2d", n=1, c_in=16, c_out=48, h_in=8, w_in=8, threads=2)
    cost = SPARSE.cost(problem)
    terms = roofline_terms((problem,), SPARSE, LIMITS)
    assert terms.dealing_s[0] == pytest.approx(cost.values_dealt * ONE_BY_ONE_S / 1.5)
    assert terms.starts_s[0] == pytest.approx(cost.starts * START_S / 1.5)
    assert terms.copying_s[0] == pytest.approx(cost.bytes_copied / (1.5 * 4e11), rel=0.2)
    # Starting loops is part of the arithmetic; copies come on top of everything that overlaps.
    without = roofline_times(terms, replace(PRIOR, starts_scale=0.0, dealing_scale=0.0))
    times = roofline_times(terms, PRIOR)
    assert times[0, 0] - without[0, 0] == pytest.approx(terms.starts_s[0] * PRIOR.starts_scale)
    assert times[4, 0] - without[4, 0] == pytest.approx(terms.dealing_s[0] * PRIOR.dealing_scale)
