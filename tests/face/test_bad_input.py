"""Wrong input to the commands: one line that names it, exit code 2, nothing half-written."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparseplan.cli import main
from sparseplan.model_spec import load_model

Fails = Callable[[list[str], str], None]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command; check that it ends with exit code 2 and one line that matches."""

    def check(arguments: list[str], pattern: str) -> None:
        capsys.readouterr()
        assert main(arguments) == 2
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if "error:" in line]
        assert len(lines) == 1, captured.err
        assert re.search(pattern, lines[0]), lines[0]
        assert captured.out == ""

    return check


@pytest.fixture
def planning(user_file: Path, profile_path: Path, tmp_path: Path) -> list[str]:
    """A plan command that works but for its target."""
    return [
        *("plan", "--model", f"{user_file}:model", "--input", "16,1,8,8", "--profile", str(profile_path)),
        *("--out", str(tmp_path / "plan.json")),
    ]


def test_missing_file(fails: Fails, tmp_path: Path) -> None:
    fails(["measure", str(tmp_path / "no.jsonl"), "--out", str(tmp_path / "m")], r"no\.jsonl.*No such file")


def test_truncated_profile(fails: Fails, planning: list[str], profile_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.json"
    cut.write_text(profile_path.read_text()[:5000])
    planning[planning.index("--profile") + 1] = str(cut)
    fails([*planning, "--target-speedup", "1.1"], r"cut\.json is not a machine profile.*truncated")
    assert not (tmp_path / "plan.json").exists()


def test_newer_schema(fails: Fails, planning: list[str], profile_path: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps(json.loads(profile_path.read_text()) | {"schema_version": 99}))
    planning[planning.index("--profile") + 1] = str(newer)
    fails([*planning, "--target-speedup", "1.1"], r"schema version 99.*upgrade")


def test_unknown_layer(fails: Fails, planning: list[str], tmp_path: Path) -> None:
    assert main([*planning, "--target-speedup", "1.01"]) == 0
    fails(["explain", str(tmp_path / "plan.json"), "layer9.conv"], r"layer9\.conv")


def test_wrong_input_shape(fails: Fails, planning: list[str], tmp_path: Path) -> None:
    planning[planning.index("--input") + 1] = "16,3,8,8"
    fails([*planning, "--target-speedup", "1.1"], r"16, 3, 8, 8|16,3,8,8")
    assert not (tmp_path / "plan.json").exists()


def test_impossible_target_answers_with_the_best(fails: Fails, planning: list[str], tmp_path: Path) -> None:
    fails([*planning, "--target-speedup", "1000"], r"1000.*\d\.\d+x?.*plan\.json")
    assert json.loads((tmp_path / "plan.json").read_text())["solver"]["status"] == "infeasible"


def test_targets(fails: Fails, planning: list[str]) -> None:
    fails(planning, "no target given; give one or several of --target-speedup, --target-latency-ms")
    fails([*planning, "--target-speedup", "2", "--target-throughput", "-1"], "--target-throughput -1: allowed is more")
    fails([*planning, "--target-speedup", "2", "--sweep", "1"], "sweep of 1 points; allowed are 2 or more")


def test_a_database_needs_data(fails: Fails, planning: list[str], tmp_path: Path) -> None:
    fails([*planning, "--target-speedup", "2", "--database", str(tmp_path / "db")], "calibration data; give --data")


def test_nan_weights(fails: Fails, planning: list[str], user_file: Path, tmp_path: Path) -> None:
    state = load_model(f"{user_file}:model").state_dict()
    state["3.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    fails([*planning, "--target-speedup", "1.1", "--weights", str(tmp_path / "nan.safetensors")], r"3\.weight")


def test_empty_data_folder(fails: Fails, planning: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fails([*planning, "--target-speedup", "1.1", "--data", f"imagefolder:{tmp_path / 'empty'}"], r"empty")


def test_unwritable_output(fails: Fails, planning: list[str], tmp_path: Path) -> None:
    planning[planning.index("--out") + 1] = str(tmp_path / "no" / "plan.json")
    fails([*planning, "--target-speedup", "1.1"], r"cannot write .*no/plan\.json")


def test_output_is_a_folder(fails: Fails, tmp_path: Path) -> None:
    fails(["profile", "--out", str(tmp_path)], r"is a folder")


def test_unknown_pattern(fails: Fails, planning: list[str]) -> None:
    fails([*planning, "--target-speedup", "1.1", "--patterns", "filter,blok:4x4"], r"'blok:4x4'.*allowed: dense")


def test_unknown_network(fails: Fails, planning: list[str]) -> None:
    planning[planning.index("--model") + 1] = "zoo:resnet21"
    fails([*planning, "--target-speedup", "1.1"], r"resnet21.*resnet20")


def test_cuda_without_a_gpu(fails: Fails, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    fails(["profile", "--device", "cuda", "--out", str(tmp_path / "p.json")], r"no CUDA GPU")


def test_too_many_threads(fails: Fails, tmp_path: Path) -> None:
    fails(["profile", "--threads", "4096", "--out", str(tmp_path / "p.json")], r"4096.*allowed is 1 to")


def test_plan_for_another_model(fails: Fails, planning: list[str], user_file: Path, tmp_path: Path) -> None:
    assert main([*planning, "--target-speedup", "1.01"]) == 0
    arguments = ["train", "--plan", str(tmp_path / "plan.json"), "--model", "zoo:lenet", "--data", "digits"]
    fails([*arguments, "--run", str(tmp_path / "run")], r"plan")
    assert not (tmp_path / "run").exists()


def test_data_that_do_not_fit_leave_no_run_folder(
    fails: Fails, planning: list[str], user_file: Path, tmp_path: Path
) -> None:
    assert main([*planning, "--target-speedup", "1.01"]) == 0
    arguments = ["train", "--plan", str(tmp_path / "plan.json"), "--model", f"{user_file}:model", "--data", "digits"]
    fails([*arguments, "--run", str(tmp_path / "run")], r"4.*10|10.*4")
    assert not (tmp_path / "run").exists()


def test_interrupt_in_training_keeps_the_checkpoint(
    fails: Fails, planning: list[str], user_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*planning, "--target-speedup", "1.01"]) == 0
    arguments = ["train", "--plan", str(tmp_path / "plan.json"), "--model", f"{user_file}:model"]
    arguments += ["--data", f"{user_file}:data", "--run", str(tmp_path / "run"), "--epochs", "2"]
    from sparseplan.trainer.learner import Learner

    run_epoch = Learner.run_epoch

    def interrupted(self: Learner, epoch: int, **options: object) -> object:
        if epoch == 2:
            raise KeyboardInterrupt
        return run_epoch(self, epoch, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "run_epoch", interrupted)
        fails(arguments, r"after epoch 1 of 2.*--resume")
    assert not (tmp_path / "run" / "planned.safetensors").exists()
    assert main([*arguments, "--resume"]) == 0
    assert (tmp_path / "run" / "planned.safetensors").exists()
