"""Adding a model's layers to a profile."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from profile_samples import small_profile

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.profiles import extend_profile as module
from sparseplan.profiles.extend_profile import extend_profile, layer_problems
from sparseplan.profiles.schema import ElementwiseSample, KernelSample
from sparseplan.profiles.timing import TimeStats

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


def test_one_disturbed_pass_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of many such layers would else be predicted hundreds of times too slow."""
    passes = []

    def time_s(true_s: float) -> TimeStats:
        median = (200.0 if len(passes) == 1 else 1.0) * true_s
        return TimeStats(median=median, low=median, high=median, n=9)

    def sample(watch, problem, kernels, **_):  # type: ignore[no-untyped-def]
        names = [kernel.name for kernel in kernels]
        return [
            KernelSample(problem=problem, kernel=name, time_s=time_s(1e-4), pack_time_s=0.0, noisy=False)
            for name in names
        ]

    def between(*, threads, sizes_bytes, **_):  # type: ignore[no-untyped-def]
        for size in sizes_bytes:
            yield ElementwiseSample(operation="add", bytes_moved=3.0 * size, threads=threads, time_s=time_s(1e-5))
        passes.append(threads)

    monkeypatch.setattr(module, "sample_on", sample)
    monkeypatch.setattr(module, "measure_elementwise", between)
    before = small_profile()
    after = extend_profile(before, (LAYER,), machine=detect_machine(), registry=REGISTRY)
    assert len(passes) == module.PASSES
    added = [each for each in after.samples if each not in before.samples]
    assert added
    assert {each.time_s.median for each in added} == {1e-4}
    operations = [each for each in after.elementwise if each not in before.elementwise]
    assert operations
    assert {each.time_s.median for each in operations} == {1e-5}
    assert all(each.time_s.high > 1e-4 for each in (*added, *operations))


def test_problems_for_other_threads_are_refused() -> None:
    profile = small_profile()
    other = replace(LAYER, threads=profile.threads + 1)
    with pytest.raises(InputError, match=rf"for {other.threads} threads, the profile is of {profile.threads}"):
        extend_profile(profile, (other,), machine=detect_machine(), registry=REGISTRY)
