"""Which predictions are harder than others."""

from __future__ import annotations

import numpy as np
import pytest

from sparseplan.perfmodel.difficulty import ENOUGH, EQUAL, SMALLEST, HeldOut, fit_difficulty


def _held_out(count: int, seed: int, *, scale: float) -> HeldOut:
    """Errors four times as large where the first feature is positive."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(count, 3))
    spread = scale * np.where(features[:, 0] > 0.0, 0.4, 0.1)
    return HeldOut(residuals=spread * generator.normal(size=count), features=features)


def test_harder_regions_get_larger_factors_whatever_the_kernels_own_error() -> None:
    kernels = [_held_out(400, 1, scale=1.0), _held_out(400, 2, scale=0.05)]
    difficulty, factors = fit_difficulty(kernels)
    hard, easy = difficulty.factor(np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))
    assert hard > 2.0 * easy
    # A kernel with errors a twentieth as large is as hard in units of its own typical error.
    for kernel, own in zip(kernels, factors, strict=True):
        is_hard = kernel.features[:, 0] > 0.0
        assert np.median(own[is_hard]) == pytest.approx(hard, rel=0.5)
        assert np.median(own[is_hard]) > 2.0 * np.median(own[~is_hard])


def test_factors_of_the_residuals_come_from_trees_that_did_not_see_them() -> None:
    """Pure noise cannot be foreseen: the factors must not follow each residual's own size."""
    generator = np.random.default_rng(3)
    residuals = generator.normal(size=600)
    held_out = HeldOut(residuals=residuals, features=generator.normal(size=(600, 4)))
    _, (factors,) = fit_difficulty([held_out])
    assert abs(np.corrcoef(np.abs(residuals), factors)[0, 1]) < 0.15


def test_too_few_residuals_make_all_predictions_equal() -> None:
    difficulty, (factors,) = fit_difficulty([_held_out(ENOUGH - 1, 4, scale=1.0)])
    assert difficulty is EQUAL
    assert (factors == 1.0).all()
    assert (difficulty.factor(np.zeros((3, 3))) == 1.0).all()


def test_factors_are_those_of_the_whole_forest() -> None:
    held_out = _held_out(200, 5, scale=1.0)
    difficulty, _ = fit_difficulty([held_out])
    assert difficulty.trees is not None
    expected = np.maximum(difficulty.trees.predict(held_out.features), SMALLEST)
    np.testing.assert_allclose(difficulty.factor(held_out.features), expected, rtol=1e-6)
