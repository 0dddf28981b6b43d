"""The accuracy experiments: what is counted, tabled, and gone on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.accuracy.__main__ import EXPERIMENTS, main
from benchmarks.accuracy.count import count_work
from benchmarks.accuracy.options import ExperimentOptions
from benchmarks.accuracy.outcome import load_outcomes, table
from benchmarks.accuracy.ssl import groups_left
from benchmarks.accuracy.variant import Variant, run_variants
from sparseplan.data_spec import load_data
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.trainer.assignment import LayerSparsity
from sparseplan.trainer.data import DataSplits, Split
from sparseplan.trainer.sas import convert


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 10))
    return nn.Sequential(*layers)


def test_multiply_adds_with_zeros_are_not_counted_and_sas_runs_one_slot() -> None:
    model, image = net(), torch.randn(1, 1, 8, 8)
    dense = 36 * 36 + 16 * 6 * 36 + 960
    assert count_work(model, image).multiply_adds == dense
    assert count_work(convert(model, 4), image).multiply_adds <= dense
    model[2].weight.data[:3] = 0.0
    work = count_work(model, image)
    assert work.multiply_adds == dense - 16 * 3 * 36
    assert work.weight_bytes == 4 * work.parameters


def test_groups_left_are_named() -> None:
    model = net()
    model[2].weight.data[:2] = 0.0
    model[2].weight.data[:, 1, 0, 0] = 0.0
    assert groups_left(model) == {"2": "4/6 filters, 35/36 shapes"}


@pytest.fixture
def few() -> DataSplits:
    data = load_data("digits")
    train = Split(images=data.train.images[:128], labels=data.train.labels[:128])
    return replace(data, train=train)


def test_a_series_of_trainings_is_tabled_and_gone_on_with(few: DataSplits, tmp_path: Path) -> None:
    options = ExperimentOptions(data=tmp_path, out=tmp_path / "o", epochs=1, seeds=(0, 1), subset=None, device="cpu")
    target = LayerSparsity(name="2", pattern=parse_pattern("filter"), sparsity=0.5)
    variants = (
        Variant(name="dense", network=lambda seed: net()),
        Variant(name="half", network=lambda seed: net(), assign=lambda _: (target,)),
    )
    said: list[str] = []
    text = run_variants("e", variants, few, options=options, sizes=groups_left, say=said.append)
    assert len(said) == 4
    assert text.count("| dense |") == 1
    assert "2 3/6 filters" in text
    outcomes = load_outcomes(options.out)
    assert [(each.variant, each.seed) for each in outcomes] == [("dense", 0), ("dense", 1), ("half", 0), ("half", 1)]
    assert table(outcomes) == text
    assert run_variants("e", variants, few, options=options, sizes=groups_left, say=said.append) == text
    assert len(said) == 4


def test_an_experiment_without_its_data_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lenet-ssl", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "1"]) == 2
    assert "error: no folder" in capsys.readouterr().err
    assert len(EXPERIMENTS) == 9
