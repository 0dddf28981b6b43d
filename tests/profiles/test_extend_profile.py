"""Adding a model's layers to a profile."""

from __future__ import annotations

import pytest
import torch
from profile_samples import small_profile

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.profiles import extend_profile as module
from sparseplan.profiles.extend_profile import extend_profile, layer_problems

LAYER = Problem(op="conv2d", n=2, c_in=8, c_out=8, h_in=6, w_in=6, kernel=(3, 3), padding=(1, 1))


def test_each_different_layer_once_under_every_pattern() -> None:
    problems = layer_problems([LAYER, LAYER], ("unstructured", "filter", "2:4"))
    assert len(problems) == len(set(problems))
    assert problems[0] == LAYER
    assert [problem.sparsity for problem in problems if problem.pattern == "2:4"] == [0.5]
    assert {problem.pattern for problem in problems} == {"dense", "unstructured", "filter", "2:4"}


def test_samples_are_added_and_older_ones_of_the_same_work_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBLEM_S", 0.01)
    problems = (LAYER, LAYER.with_sparsity("unstructured", 0.9))
    before = small_profile()
    threads = torch.get_num_threads()
    once = extend_profile(before, problems, machine=detect_machine(), registry=REGISTRY)
    twice = extend_profile(once, problems, machine=detect_machine(), registry=REGISTRY)
    assert torch.get_num_threads() == threads
    assert set(before.samples) < set(once.samples)
    assert len(once.samples) == len(twice.samples)
    added = [sample for sample in once.samples if sample not in before.samples]
    assert {sample.problem for sample in added} == set(problems)
    assert any("unstructured" in sample.kernel for sample in added)
    assert once.duration_s > before.duration_s
