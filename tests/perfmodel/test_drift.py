"""How fast the machine was: told from what kernels of neighbouring problems have in common."""

import numpy as np
import pytest
from synthetic_machine import profile_of

from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.drift import ENOUGH_PROBLEMS, drift_of
from sparseplan.profiles.schema import KernelSample
from sparseplan.profiles.timing import TimeStats

TIME = TimeStats(median=1e-3, low=1e-3, high=1e-3, n=9)
KERNELS = ("a", "b", "c")


def samples_of(problems: int) -> list[KernelSample]:
    return [
        KernelSample(
            problem=Problem(op="linear", n=1, c_in=64 + number, c_out=64),
            kernel=kernel,
            time_s=TIME,
            pack_time_s=0.0,
            noisy=False,
        )
        for number in range(problems)
        for kernel in KERNELS
    ]


def test_a_slow_spell_is_told_from_misfits_of_the_model() -> None:
    generator = np.random.default_rng(0)
    problems = 400
    slow = np.zeros(problems)
    slow[100:160] = 0.3
    misfit = generator.normal(0.0, 0.1, (problems, len(KERNELS)))
    found = drift_of(samples_of(problems), (slow[:, None] + misfit).ravel()).reshape(problems, len(KERNELS))
    assert np.ptp(found, axis=1).max() == 0.0
    assert found[110:150].mean() == pytest.approx(0.3, abs=0.03)
    assert np.abs(found[200:]).mean() < 0.03
    assert np.median(found) == pytest.approx(0.0, abs=1e-9)


def test_one_disturbed_problem_moves_its_neighbours_little() -> None:
    residuals = np.zeros(3 * ENOUGH_PROBLEMS)
    residuals[75:78] = 3.0
    assert np.abs(drift_of(samples_of(ENOUGH_PROBLEMS), residuals)).max() < 0.04


def test_unpredicted_samples_say_nothing() -> None:
    residuals = np.full(3 * ENOUGH_PROBLEMS, 0.2)
    residuals[::2] = np.nan
    residuals[60:90] = np.nan
    assert np.abs(drift_of(samples_of(ENOUGH_PROBLEMS), residuals)).max() == pytest.approx(0.0, abs=1e-9)


def test_too_few_problems_tell_nothing() -> None:
    few = samples_of(ENOUGH_PROBLEMS - 1)
    assert not drift_of(few, np.linspace(-1.0, 1.0, len(few))).any()
    assert drift_of(profile_of(()).samples, np.empty(0)).shape == (0,)
