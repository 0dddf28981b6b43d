"""What a job costs: steps of the trainer's own, with and without an assignment, scaled to whole trainings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import job_cost
from sparseplan.data_spec import load_data
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.trainer.assignment import LayerSparsity
from sparseplan.trainer.data import Split
from sparseplan.trainer.learner import Learner


def test_every_epoch_is_timed_and_the_model_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data("digits")
    count = 2 * job_cost.BATCH
    few = replace(data, train=Split(images=data.train.images[:count], labels=data.train.labels[:count]))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[tuple[int, bool, bool]] = []

    def run_epoch(self: Learner, epoch: int, **rest: object) -> None:
        seen.append((epoch, self.teacher is not None, bool(self.regulariser.layers)))
        assert self.steps == 2

    half = LayerSparsity(name="0", pattern=parse_pattern("filter"), sparsity=0.5)
    assert all(time_s > 0.0 for time_s in job_cost.step_times(model, (half,), few, epochs=2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    monkeypatch.setattr(Learner, "run_epoch", run_epoch)
    assert len(job_cost.step_times(model, (), few, epochs=2)) == 2
    assert len(job_cost.step_times(model, (half,), few, epochs=3)) == 3
    assert seen == [(1, False, False), (2, False, False), *((epoch, True, True) for epoch in (1, 2, 3))]


def test_short_epochs_stand_for_those_of_the_whole_job() -> None:
    assert job_cost.training_s([2.0, 4.0], epochs=10, steps=5) == pytest.approx(150.0)
