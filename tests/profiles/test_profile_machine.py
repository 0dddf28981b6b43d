"""A whole profile in a few seconds: measured, stored, fitted, asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from profile_samples import small_profile

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.profiles import profile_machine as module
from sparseplan.profiles.profile_machine import TIME_TABLES, ProfileRequest, TimeTable, profile_machine
from sparseplan.profiles.schema import MachineProfile, StabilitySample
from sparseplan.profiles.store import load_profile, save_profile

REQUEST = ProfileRequest(budget="quick", threads=1, machine=detect_machine(), registry=REGISTRY)
TABLE = TimeTable(total_s=5.0, elementwise_s=0.1, elementwise_sizes=(1 << 14, 1 << 18), problem_s=0.02)


@pytest.fixture(scope="module")
def profile() -> MachineProfile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TIME_TABLES, "quick", TABLE)
        start = time.perf_counter()
        threads = torch.get_num_threads()
        found = profile_machine(REQUEST)
        assert torch.get_num_threads() == threads
        # The last problem may run over; generous, as the machine may be busy.
        assert time.perf_counter() - start < 4 * TABLE.total_s
    return found


def test_it_holds_every_part(profile: MachineProfile) -> None:
    assert profile.threads == 1
    assert profile.duration_s > 0
    assert profile.ceiling("flop_per_s:fma_f32").value > 0
    assert len(profile.samples) >= 10
    assert len({sample.kernel for sample in profile.samples}) >= 5
    assert {sample.operation for sample in profile.elementwise} >= {"relu", "add", "nchw_to_nhwc"}


def test_dense_kernels_are_timed_on_dense_problems_only(profile: MachineProfile) -> None:
    for sample in profile.samples:
        assert ("_dense_" in sample.kernel) == (sample.problem.pattern == "dense")
        assert sample.noisy == (sample.time_s.spread_frac > 0.02)


def test_it_survives_storing_and_answers_questions(profile: MachineProfile, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_profile(path, profile)
    model = fit_performance_model(load_profile(path), REGISTRY)
    for sample in profile.samples[:10]:
        answer = model.predict(sample.problem, sample.kernel)
        assert answer.low_s <= answer.median_s <= answer.high_s
        assert 0.02 < answer.median_s / sample.time_s.median < 50
    assert model.predict_elementwise("relu", 1e6).median_s < 1.0


def test_an_interrupt_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        torch.set_num_threads(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure_ceilings", interrupted)
    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        profile_machine(REQUEST)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("budget", "limit_s"), [("quick", 60), ("standard", 300), ("full", 1800)])
def test_time_tables_stay_within_what_is_promised(budget: module.Budget, limit_s: float) -> None:
    assert TIME_TABLES[budget].total_s < 0.98 * limit_s


def test_an_interrupted_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept is not measured again, and its time counts."""
    monkeypatch.setitem(TIME_TABLES, "quick", replace(TABLE, total_s=8.0))
    monkeypatch.setattr(module, "KEEP_EVERY_S", 0.0)
    kept: list[MachineProfile] = []

    def interrupt(profile: MachineProfile) -> None:
        kept.append(profile)
        if len(kept) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile_machine(REQUEST, keep=interrupt)
    start = time.perf_counter()
    whole = profile_machine(REQUEST, begun=kept[-1])
    assert whole.samples[: len(kept[-1].samples)] == kept[-1].samples
    assert len(whole.samples) > len(kept[-1].samples)
    assert whole.ceilings == kept[-1].ceilings
    assert time.perf_counter() - start < whole.duration_s
    problems = [sample.problem for sample in whole.samples]
    assert len({(sample.problem, sample.kernel) for sample in whole.samples}) == len(problems)


def test_the_rest_of_the_budget_goes_to_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TIME_TABLES, "quick", TABLE)
    asked: list[int] = []

    def choose(profile: MachineProfile, candidates: Sequence[Problem], count: int) -> Sequence[Problem]:
        asked.append(count)
        return [problem for problem in candidates if problem.op == "linear" and problem.pattern == "dense"][:count]

    profile = profile_machine(REQUEST, choose=choose)
    assert len(asked) == len(module.CHOICE_SHARES)
    assert min(asked) >= 1
    spread = set(module.spread_problems("quick", 1))
    chosen = [sample.problem for sample in profile.samples if sample.problem not in spread]
    assert chosen
    assert {(problem.op, problem.pattern) for problem in chosen} == {("linear", "dense")}


def test_drift_is_the_range_of_the_peak_without_its_extremes() -> None:
    rates = [1e11] * 8 + [1.1e11] * 2 + [5e11, 1e9]
    samples = tuple(StabilitySample(at_s=float(at), flop_per_s=rate) for at, rate in enumerate(rates))
    assert small_profile().drift_frac == 0.0
    assert small_profile().model_copy(update={"stability": samples}).drift_frac == pytest.approx(0.1)
