"""On layers that were measured themselves, the measurements speak; coverage on fresh sparsities of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from synthetic_machine import SPARSE, Truth, profile_of, random_problems, samples_of

from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.anchors import REPEAT_ERROR
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.predict import PerformanceModel
from sparseplan.profiles.schema import KernelSample

LEVELS = (0.5, 0.7, 0.82, 0.9, 0.95)
ODD = 2.5
"""Times of the measured layer are this factor above what the fit can know."""


def _layers(count: int) -> list[Problem]:
    return [replace(problem, sparsity=0.0) for problem in random_problems(count, seed=7)]


def _samples(layers: list[Problem], *, noise: float, factor: float = ODD) -> tuple[KernelSample, ...]:
    problems = [replace(layer, sparsity=level) for layer in layers for level in LEVELS]
    times_s = factor * Truth(noise=noise).times(problems, seed=8)
    return samples_of(problems, times_s.tolist(), SPARSE.name)


def _model(measured: tuple[KernelSample, ...], *, noise: float = 0.0) -> PerformanceModel:
    spread = random_problems(80, seed=1)
    others = samples_of(spread, Truth(noise=noise).times(spread, seed=2).tolist(), SPARSE.name)
    return fit_performance_model(profile_of((*others, *measured)), (SPARSE,))


def test_a_measured_layer_is_predicted_as_measured_not_as_fitted() -> None:
    (layer,) = _layers(1)
    samples = _samples([layer], noise=0.0)
    model = _model(samples)
    for sample in samples:
        answer = model.predict(sample.problem, SPARSE.name)
        assert answer.median_s == pytest.approx(sample.time_s.median, rel=1e-6)
        assert not answer.extrapolated
    between = replace(layer, sparsity=0.86)
    exact = ODD * Truth().times([between], seed=0)[0]
    assert model.predict(between, SPARSE.name).median_s == pytest.approx(exact, rel=0.03)


def test_the_interval_covers_fresh_sparsities_of_measured_layers() -> None:
    layers = _layers(25)
    noise = 0.04
    model = _model(_samples(layers, noise=noise))
    fresh = [replace(layer, sparsity=level) for layer in layers for level in (0.6, 0.76, 0.86, 0.93)]
    truth = ODD * Truth(noise=noise).times(fresh, seed=9)
    answers = model.predict_many(fresh, SPARSE.name)
    covered = np.mean([a.low_s <= time_s <= a.high_s for a, time_s in zip(answers, truth, strict=True)])
    assert covered >= 0.85
    unseen = model.predict(replace(layers[0], c_out=layers[0].c_out + 64, sparsity=0.9), SPARSE.name)
    known = answers[0]
    assert known.high_s / known.low_s < unseen.high_s / unseen.low_s


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_time_never_rises_with_sparsity_whatever_was_measured(factor: float) -> None:
    (layer,) = _layers(1)
    model = _model(_samples([layer], noise=0.3, factor=factor))
    grid = [replace(layer, sparsity=float(sparsity)) for sparsity in np.linspace(0.0, 0.999, 100)]
    times_s = [answer.median_s for answer in model.predict_many(grid, SPARSE.name)]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(times_s))


def test_far_from_the_measured_sparsities_the_interval_is_that_of_unseen_layers() -> None:
    (layer,) = _layers(1)
    measured = replace(layer, sparsity=0.98)
    times_s = (ODD * Truth().times([measured], seed=0)).tolist()
    model = _model(samples_of([measured], times_s, SPARSE.name), noise=0.3)
    near, far = (model.predict(replace(layer, sparsity=sparsity), SPARSE.name) for sparsity in (0.975, 0.5))
    assert far.high_s / far.median_s > near.high_s / near.median_s


def test_one_sample_is_believed_only_as_far_as_it_repeats() -> None:
    (layer,) = _layers(1)
    (sample, *_) = _samples([layer], noise=0.0)
    answer = _model((sample,)).predict(sample.problem, SPARSE.name)
    assert np.log(answer.high_s / answer.median_s) >= REPEAT_ERROR


def test_a_disturbed_measurement_anchors_nothing() -> None:
    (layer,) = _layers(1)
    (sample, *_) = _samples([layer], noise=0.0, factor=20.0)
    noisy = sample.model_copy(
        update={"time_s": sample.time_s.model_copy(update={"high": 3.0 * sample.time_s.median}), "noisy": True}
    )
    answer = _model((noisy,)).predict(sample.problem, SPARSE.name)
    assert answer.median_s < 0.5 * sample.time_s.median
