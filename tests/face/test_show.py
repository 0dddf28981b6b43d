"""``sparseplan profile --show``: what a profile says, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sparseplan.cli import main
from sparseplan.profiles.store import load_profile


def test_it_shows_machine_ceilings_and_families(profile_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--show", str(profile_path)]) == 0
    shown = capsys.readouterr().out
    profile = load_profile(profile_path)
    for text in (
        profile.fingerprint.cpu_model,
        "drifted by 0.0 %",
        "flop_per_s:fma_f32",
        "100 Gflop/s",
        "conv2d unstructured float32",
        "ResNet-50 3x3",
        "relu",
        "A compiled network adds (assumed): 30",
        f"Profile: {profile_path}",
    ):
        assert text in shown, shown


def test_json_holds_the_same_as_numbers(profile_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--show", str(profile_path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    profile = load_profile(profile_path)
    assert sum(family["samples"] for family in summary["families"]) == len(profile.samples)
    families = {family["family"]: family for family in summary["families"]}
    dense, sparse = families["conv2d dense float32"], families["conv2d unstructured float32"]
    assert dense["break_even"] == []
    # On this made-up machine all kernels reach the same rate on what they execute: nearly any zeros pay.
    bounds = {each["layer"]: each["sparsity"] for each in sparse["break_even"]}
    assert set(bounds) == {"ResNet-50 3x3", "ResNet-50 1x1", "ResNet-56 3x3"}
    assert 0.0 < bounds["ResNet-50 3x3"] < 0.5
    assert 0.0 <= sparse["held_out_error_frac"] < 1.0
    assert sum(each["samples"] for each in summary["elementwise"]) == len(profile.elementwise)


def test_the_plot_is_a_file_of_its_own(profile_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "roof.svg"
    assert main(["profile", "--show", str(profile_path), "--plot", str(path), "--json"]) == 0
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = " ".join(root.itertext())
    assert "float32 multiply-add 100 Gflop/s" in text
    assert "memory 20.0 GB/s" in text
    assert "unstructured" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "x.svg"], "--plot belongs to --show"),
        (["--show", "p.json", "--threads", "1"], "--threads does not belong to it"),
        (["--show", "absent.json"], "absent.json: No such file"),
        (["--show", "ref:no-such"], "no reference profile is named 'no-such'; there are: ref:"),
    ],
)
def test_wrong_options_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
