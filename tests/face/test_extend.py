"""Profiles and where they were made: extending one, and using one of another machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparseplan.cli import main
from sparseplan.profiles import extend_profile as module


def test_extending_adds_the_layers_of_a_model(
    user_file: Path, profile_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBLEM_S", 0.002)
    out = tmp_path / "longer.json"
    arguments = ["profile", "--extend", str(profile_path), "--model", f"{user_file}:model"]
    assert main([*arguments, "--input", "16,1,8,8", "--out", str(out)]) == 0
    before, after = (json.loads(path.read_text()) for path in (profile_path, out))
    kernels = {sample["kernel"] for sample in after["samples"]}
    assert len(after["samples"]) > len(before["samples"])
    assert {"conv2d_shape_f32_nchw__torch", "conv2d_compact_f32_nhwc__onednn"} <= kernels
    assert after["ceilings"] == before["ceilings"]


def test_extending_needs_model_and_input(profile_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--extend", str(profile_path)]) == 2
    assert "--model and --input belong together" in capsys.readouterr().err


def _of_another_machine(profile_path: Path, tmp_path: Path) -> Path:
    content = json.loads(profile_path.read_text())
    content["fingerprint"]["cpu_model"] = "Imaginary CPU"
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    return path


def test_a_profile_of_another_machine_cannot_be_extended(
    user_file: Path, profile_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = _of_another_machine(profile_path, tmp_path)
    assert main(["profile", "--extend", str(other), "--model", f"{user_file}:model", "--input", "16,1,8,8"]) == 2
    assert "Imaginary CPU" in capsys.readouterr().err


def test_a_profile_of_another_machine_plans_with_a_warning(
    user_file: Path, profile_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = _of_another_machine(profile_path, tmp_path)
    arguments = ["plan", "--model", f"{user_file}:model", "--input", "16,1,8,8", "--profile", str(other)]
    assert main([*arguments, "--target-speedup", "1.01", "--out", str(tmp_path / "plan.json")]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning:" in line]
    assert "Imaginary CPU" in line


def test_json_stands_alone_on_standard_output(user_file: Path, profile_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sparseplan", "plan", "--model", f"{user_file}:model", "--input", "16,1,8,8"]
    command += ["--profile", str(profile_path), "--target-speedup", "1.02", "--out", str(tmp_path / "p.json"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads((tmp_path / "p.json").read_text())
