"""The grid of element-wise sparsity learning: what lambda follows from, and how results are laid out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.accuracy.gsl_grid import grid, strength_for
from benchmarks.accuracy.outcome import Outcome
from sparseplan.trainer.element_l1 import ElementL1, ThinningWeights
from sparseplan.trainer.schedule import learning_rate_of, pruning_epochs
from sparseplan.trainer.schema import TrainConfig


def test_the_penalty_alone_pulls_a_weight_as_far_as_is_asked() -> None:
    config = TrainConfig(epochs=4, learning_rate=0.02, weight_decay=0.0)
    strength = strength_for(0.05, config, steps=100)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=config.momentum, nesterov=True)
    thinning = ThinningWeights(ElementL1(strength=strength, threshold=1e-9, factor=1.0))
    rate = learning_rate_of(config, steps_per_epoch=100)
    for step in range(100 * pruning_epochs(4, config.prune_frac)):
        optimizer.param_groups[0]["lr"] = rate(step)
        weight.grad = torch.zeros(1)
        thinning.before_step([weight])
        optimizer.step()
        thinning.after_step()
    assert 1.0 - weight.item() == pytest.approx(0.05, rel=0.1)


def outcome(variant: str, error: float, sizes: dict[str, str]) -> Outcome:
    return Outcome(
        experiment="e", variant=variant, seed=0, epochs=1, train_images=1, validation_error_frac=error,
        test_error_frac=error, multiply_adds=1.0, parameters=1, weight_bytes=4, train_s=1.0, sizes=sizes,
    )  # fmt: skip


def test_a_row_has_both_ways_of_a_cell() -> None:
    text = grid(
        [
            outcome("dense", 0.3, {}),
            outcome("guided esl 0.1 (1) 1e-4 10", 0.2, {"projected": "1.00x"}),
            outcome("unguided esl 0.1 (1) 1e-4 10", 0.25, {"conv1": "40 % zeros", "projected": "1.50x"}),
            outcome("guided esl 0.2 (2) 1e-4 10", 0.4, {"projected": "1.00x"}),
        ]
    )
    rows = text.splitlines()[2:]
    assert rows == [
        "| 0.1 (1) 1e-4 10 | 20.00 % | 1.00x | dense | 25.00 % | 1.50x | conv1 40 % zeros |",
        "| 0.2 (2) 1e-4 10 | 40.00 % | 1.00x | dense |  | |  |",
    ]
