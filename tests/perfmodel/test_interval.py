"""Conformal intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseplan.perfmodel.interval import COVERAGE, UNKNOWN, conformal_interval


def test_without_residuals_the_interval_is_the_widest() -> None:
    assert conformal_interval(np.empty(0)) == UNKNOWN


def test_ranks_of_a_known_sample() -> None:
    interval = conformal_interval(np.arange(-50.0, 51.0) / 100.0)
    # 101 residuals: rank ceil(102 * 0.95) = 97 of each side.
    assert interval.high == pytest.approx(0.46)
    assert interval.low == pytest.approx(-0.46)


def test_few_residuals_reach_beyond_the_largest() -> None:
    interval = conformal_interval(np.array([-0.1, 0.2]))
    assert interval.low < -0.1
    assert interval.high > 0.2


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=80))
def test_the_interval_holds_the_prediction_and_its_share_of_residuals(residuals: list[float]) -> None:
    interval = conformal_interval(np.array(residuals))
    assert interval.low <= 0.0 <= interval.high
    inside = np.mean([interval.low <= residual <= interval.high for residual in residuals])
    assert inside >= COVERAGE


def test_coverage_of_fresh_draws() -> None:
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        interval = conformal_interval(generator.standard_normal(60))
        fresh = generator.standard_normal(50)
        covered.append(np.mean((fresh >= interval.low) & (fresh <= interval.high)))
    assert 0.89 <= np.mean(covered) <= 0.95
