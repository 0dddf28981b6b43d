"""Break-even and useful sparsity of a model whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_machine import SPARSE, Truth, profile_of, random_problems, samples_of

from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.break_even import break_even_sparsity, useful_sparsity
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.predict import PerformanceModel

HEAVY = Problem(op="conv2d", n=16, c_in=256, c_out=256, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1), threads=2)


@pytest.fixture(scope="module")
def model() -> PerformanceModel:
    problems = random_problems(120, seed=1)
    samples = samples_of(problems, Truth().times(problems, seed=2).tolist(), SPARSE.name)
    return fit_performance_model(profile_of(samples), (SPARSE,))


def _time_s(model: PerformanceModel, sparsity: float) -> float:
    return model.predict(HEAVY.with_sparsity("unstructured", sparsity), SPARSE.name).median_s


def test_break_even_is_where_the_curves_cross(model: PerformanceModel) -> None:
    dense_s = _time_s(model, 0.8)
    found = break_even_sparsity(model, HEAVY, "unstructured", SPARSE.name, dense_s)
    assert found == pytest.approx(0.8, abs=0.02)
    assert found is not None
    assert _time_s(model, found) < dense_s


def test_no_break_even_against_an_unbeatable_dense_layer(model: PerformanceModel) -> None:
    assert break_even_sparsity(model, HEAVY, "unstructured", SPARSE.name, 1e-9) is None


def test_break_even_at_once_against_a_slow_dense_layer(model: PerformanceModel) -> None:
    found = break_even_sparsity(model, HEAVY, "unstructured", SPARSE.name, 10.0)
    assert found is not None
    assert found < 0.06


def test_fixed_patterns_have_one_sparsity(model: PerformanceModel) -> None:
    assert break_even_sparsity(model, HEAVY, "2:4", SPARSE.name, 10.0) == 0.5
    assert break_even_sparsity(model, HEAVY, "2:4", SPARSE.name, 1e-9) is None
    assert useful_sparsity(model, HEAVY, "2:4", SPARSE.name) is None


def test_useful_sparsity_is_where_the_curve_goes_flat(model: PerformanceModel) -> None:
    # 1x1 convolution of large images: bytes bind early.
    thin = replace(HEAVY, c_in=32, c_out=32, h_in=32, w_in=32, kernel=(1, 1), padding=(0, 0))
    bound = useful_sparsity(model, thin, "unstructured", SPARSE.name)
    assert bound is not None
    beyond, far = (
        model.predict(thin.with_sparsity("unstructured", sparsity), SPARSE.name).median_s for sparsity in (bound, 0.995)
    )
    slope = np.log(beyond / far) / np.log((1 - bound) / 0.005)
    assert slope < 0.1
    heavier = useful_sparsity(model, HEAVY, "unstructured", SPARSE.name)
    assert heavier is None or heavier > bound
