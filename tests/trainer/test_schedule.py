from __future__ import annotations

from itertools import pairwise

import pytest

from sparseplan.trainer.schedule import LearningRate, cubic_sparsity, learning_rate_of, pruning_epochs
from sparseplan.trainer.schema import TrainConfig


def rates(total: int, warmup: int) -> list[float]:
    rate = LearningRate(total_steps=total, warmup_steps=warmup, peak=0.1)
    return [rate(step) for step in range(total)]


def test_the_rate_warms_up_in_equal_steps_then_falls_to_nearly_zero() -> None:
    warm = rates(100, 4)
    assert warm[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert all(earlier > later for earlier, later in pairwise(warm[4:]))
    assert 0 < warm[-1] < 1e-4


def test_half_of_the_peak_is_reached_half_way() -> None:
    assert rates(100, 0)[50] == pytest.approx(0.05)


def test_a_warm_up_longer_than_the_run_is_cut_to_half_of_it() -> None:
    assert max(rates(6, 1000)) == pytest.approx(0.1)
    assert rates(1, 1000) == [0.1]


def test_the_step_schedule_drops_after_every_so_many_epochs() -> None:
    config = TrainConfig(epochs=5, schedule="step", decay_epochs=2, decay_rate=0.5, warmup_epochs=0.5, learning_rate=1)
    rate = learning_rate_of(config, steps_per_epoch=4)
    expected = [1 / 3, 2 / 3, *[1.0] * 6, *[0.5] * 8, *[0.25] * 4]
    assert [rate(step) for step in range(20)] == pytest.approx(expected)


def test_sparsity_follows_the_cubic_of_zhu_and_gupta() -> None:
    assert cubic_sparsity(0.0, final=0.8) == 0.0
    assert cubic_sparsity(0.5, final=0.8) == pytest.approx(0.8 * 7 / 8)
    assert cubic_sparsity(1.0, final=0.8) == 0.8


@pytest.mark.parametrize(
    ("epochs", "prune_frac", "expected"),
    [(10, 0.5, 5), (10, 0.3, 3), (10, 1.0, 9), (10, 0.0, 0), (2, 0.5, 1), (1, 1.0, 0), (0, 0.5, 0)],
)
def test_fine_tuning_always_keeps_an_epoch(epochs: int, prune_frac: float, expected: int) -> None:
    assert pruning_epochs(epochs, prune_frac) == expected
