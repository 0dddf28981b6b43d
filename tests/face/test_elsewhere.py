"""Profiles of other machines: planned for, kernels and all, but never measured for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparseplan.cli import main
from sparseplan.commands.elsewhere import machine_of
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import SparseplanWarning
from sparseplan.kernels.registry import REGISTRY
from sparseplan.profiles.store import load_profile, save_profile

EVERY_ISA = ("baseline", "avx2", "avx512", "avx512vnni", "avx512bf16", "avx512fp16", "amx")
TILES = {
    "op": "linear",
    "n": 64,
    "c_in": 512,
    "c_out": 512,
    "dtype": "bfloat16",
    "pattern": "block:16x32",
    "sparsity": 0.75,
}


def _with_fingerprint(source: Path, target: Path, **changes: object) -> Path:
    profile = load_profile(source)
    fingerprint = profile.fingerprint.model_copy(update=changes)
    save_profile(target, profile.model_copy(update={"fingerprint": fingerprint}))
    return target


@pytest.fixture(scope="module")
def foreign_path(profile_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of a machine with every instruction set, which is not this one; compressed, as references are."""
    path = tmp_path_factory.mktemp("foreign") / "foreign.json.gz"
    return _with_fingerprint(profile_path, path, cpu_model="Another CPU", isa=EVERY_ISA)


def test_the_machine_of_a_profile_made_here_is_this_one(profile_path: Path) -> None:
    assert machine_of(load_profile(profile_path), profile_path) == detect_machine()


def test_the_machine_of_a_foreign_profile_is_its_own(foreign_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(SparseplanWarning, match=r"Another CPU here|Another CPU there.*may not run or not pay here"):
        machine = machine_of(load_profile(foreign_path), foreign_path)
    assert machine.isa == EVERY_ISA
    assert machine.torch_ops == detect_machine().torch_ops
    monkeypatch.setenv("SPARSEPLAN_ISA", "avx2")
    with pytest.warns(SparseplanWarning):
        assert machine_of(load_profile(foreign_path), foreign_path).isa == ("baseline", "avx2")


def test_other_versions_warn_and_say_what_to_do(profile_path: Path, tmp_path: Path) -> None:
    path = _with_fingerprint(profile_path, tmp_path / "p.json", torch_version="2.0.0")
    with pytest.warns(SparseplanWarning, match=r"the torch version: 2\.0\.0 there.*make the profile again") as warned:
        assert machine_of(load_profile(path), path) == detect_machine()
    assert len(warned) == 1


def test_kernels_are_predicted_that_cannot_run_here(
    foreign_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_amx = {kernel.name for kernel in REGISTRY if kernel.isa == "amx"}
    problems, out = tmp_path / "p.jsonl", tmp_path / "out.jsonl"
    problems.write_text(json.dumps(TILES) + "\n")
    arguments = [str(problems), "--profile", str(foreign_path), "--out", str(out), "--kernel", "all"]
    assert main(["predict", *arguments]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert with_amx & {record["kernel"] for record in records}
    # Nothing of the kind was measured there, and the answer says so.
    assert all(record["extrapolated"] for record in records if record["kernel"] in with_amx)
    printed = capsys.readouterr()
    assert "outside the measured range" in printed.out
    assert printed.err.count("warning") == 1


def test_a_plan_is_of_the_profiles_machine(
    foreign_path: Path, user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    arguments = ["--model", f"{user_file}:model", "--input", "16,1,8,8", "--profile", str(foreign_path)]
    assert main(["plan", *arguments, "--target-speedup", "1.01", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["machine"] == "Another CPU"
    assert "Another CPU" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["validate", "--profile"], ["profile", "--model", "zoo:lenet", "--extend"]])
def test_what_takes_measurements_is_refused(
    command: list[str], foreign_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--input", "1,1,28,28"] if command[0] == "profile" else []
    assert main([*command, str(foreign_path), *extra, "--out", str(tmp_path / "o.json")]) == 2
    error = capsys.readouterr().err
    assert "Another CPU there" in error
    assert len(error.strip().splitlines()) == 1


def test_a_reference_is_never_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--extend", "ref:zen5-2c", "--model", "zoo:lenet", "--input", "1,1,28,28"]
    assert main(["profile", *arguments]) == 2
    assert "ref:zen5-2c is a reference and stays as it is" in capsys.readouterr().err
