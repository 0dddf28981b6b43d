"""``sparseplan validate`` end to end, on a small network and a short budget."""

from dataclasses import replace
from pathlib import Path

import pytest

from sparseplan.cli import main
from sparseplan.commands import validate as command
from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.features import layer_key
from sparseplan.perfmodel.judge import EVERYTHING, MODEL, REPEATED
from sparseplan.perfmodel.schema import Validation
from sparseplan.profiles.schema import NetworkLayer, NetworkSample
from sparseplan.profiles.store import load_profile
from sparseplan.profiles.timing import TimeStats

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    table = command.TimeTable(total_s=3.0, problem_s=0.01)
    monkeypatch.setattr(command, "TIME_TABLES", dict.fromkeys(("quick", "standard", "full"), table))
    monkeypatch.setattr(command, "DEFAULT_NETWORKS", ())
    monkeypatch.setattr(command, "HOSTS", ("eager", "channels_last"))


def test_random_problems_and_a_network(profile_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.json"
    result = command.validate(profile_path, out=out, networks=[("zoo:lenet", (4, 1, 28, 28))])
    assert Validation.model_validate_json(out.read_text()) == result
    assert out.with_suffix(".svg").read_text().startswith("<svg")
    assert {row.predictor for row in result.qualities} == {
        MODEL, "flop only", "naive roofline", "nearest neighbour", REPEATED
    }  # fmt: skip
    total = next(row.quality for row in result.qualities if (row.predictor, row.family) == (MODEL, EVERYTHING))
    assert total.predictions == len(result.predictions) > 0
    (network,) = result.networks
    assert network.model == "zoo:lenet"
    assert network.predicted_s.low <= network.predicted_s.median <= network.predicted_s.high


def test_held_out_layers_leave_the_profile(profile_path: Path) -> None:
    profile = load_profile(profile_path)
    layer = profile.samples[0].problem
    known = command.without_layers(profile, [layer])
    assert 0 < len(known.samples) < len(profile.samples)
    assert layer_key(layer) not in {layer_key(sample.problem) for sample in known.samples}


def _network(*problems: Problem) -> NetworkSample:
    return NetworkSample(
        model="zoo:convnet",
        input_shape=(1, 3, 32, 32),
        layers=tuple(NetworkLayer(problem=problem, kernel="k", calls=1) for problem in problems),
        between=(),
        touched_bytes=0.0,
        time_s=TimeStats(median=1.0, low=1.0, high=1.0, n=7),
    )


def test_networks_mostly_of_held_out_layers_leave_the_profile(profile_path: Path) -> None:
    layer, other, third = (Problem(op="linear", n=1, c_in=width, c_out=8) for width in (16, 32, 48))
    stays, goes = _network(layer, other, third), _network(layer, replace(layer, n=4), third)
    profile = load_profile(profile_path).model_copy(update={"networks": (stays, goes)})
    assert command.without_layers(profile, [layer]).networks == (stays,)


def test_held_out_networks_leave_the_profile(profile_path: Path) -> None:
    sample = _network(Problem(op="linear", n=1, c_in=16, c_out=8))
    others = sample.model_copy(update={"model": "zoo:resnet56"})
    profile = load_profile(profile_path).model_copy(update={"networks": (sample, others)})
    assert command.without_networks(profile, ["zoo:convnet"]).networks == (others,)


def test_given_problems_through_the_command_line(
    profile_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = tmp_path / "problems.jsonl"
    lines = [Problem(op="linear", n=4, c_in=64, c_out=96, pattern="unstructured", sparsity=0.9)]
    problems.write_text("".join(f'{{"op":"linear","n":4,"c_in":64,"c_out":96,"pattern":"{p}","sparsity":{s}}}\n'
                                for p, s in (("unstructured", 0.9), ("dense", 0.0))))  # fmt: skip
    out = tmp_path / "v.json"
    assert main(["validate", "--profile", str(profile_path), "--problems", str(problems), "--out", str(out)]) == 0
    assert "linear float32 unstructured" in capsys.readouterr().out
    result = Validation.model_validate_json(out.read_text())
    assert {checked.problem for checked in result.predictions} == {lines[0], lines[0].as_dense()}


def test_a_missing_profile_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--profile", str(tmp_path / "none.json"), "--out", str(tmp_path / "v.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "v.json").exists()
