"""Whole networks that a profile measures, on a small one and a short budget."""

from pathlib import Path

import pytest

from sparseplan.commands import measure_networks as command
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.progress import silent
from sparseplan.profiles.store import load_profile

SHAPE = (2, 1, 28, 28)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NETWORKS", (("zoo:lenet", SHAPE), ("zoo:lenet", (1, *SHAPE[1:]))))
    monkeypatch.setattr(command, "TAKE_S", 0.01)
    monkeypatch.setattr(command, "COMPILED", ("eager",))


def test_a_network_is_stored_with_its_parts(profile_path: Path) -> None:
    profile = load_profile(profile_path)
    first, second = command.measure_networks(profile, machine=detect_machine(), progress=silent)
    assert (first.model, first.input_shape, second.input_shape[0]) == ("zoo:lenet", SHAPE, 1)
    assert [layer.problem.op for layer in first.layers] == ["conv2d", "conv2d", "linear", "linear"]
    assert all(layer.problem.threads == profile.threads and layer.calls == 1 for layer in first.layers)
    assert {each.operation for each in first.between} == {"max_pool"}
    assert first.touched_bytes > sum(layer.problem.weight_bytes for layer in first.layers)
    assert first.time_s.low <= first.time_s.median <= first.time_s.high


def test_what_does_not_fit_the_budget_is_left_out(profile_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BUDGET_S", dict.fromkeys(("quick", "standard", "full"), 0.0))
    assert command.measure_networks(load_profile(profile_path), machine=detect_machine(), progress=silent) == ()
