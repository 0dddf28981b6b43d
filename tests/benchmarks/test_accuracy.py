"""The accuracy experiments: what is counted, tabled, and gone on with."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.accuracy import measure_pruned, variant
from benchmarks.accuracy.__main__ import EXPERIMENTS, main
from benchmarks.accuracy.count import count_work
from benchmarks.accuracy.filters import multiply_adds, narrow_to
from benchmarks.accuracy.options import ExperimentOptions
from benchmarks.accuracy.outcome import Outcome, load_outcomes, table
from benchmarks.accuracy.plot import plot_results, times_of
from benchmarks.accuracy.ssl import _table_3, groups_left, shallower
from benchmarks.accuracy.variant import Variant, run_variants
from sparseplan.data_spec import load_data
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.model_spec import load_model
from sparseplan.planner.batch_statistics import batch_statistics
from sparseplan.planner.capture import capture
from sparseplan.planner.couple import couple
from sparseplan.planner.widths import GroupLevels, layer_axes
from sparseplan.trainer.assignment import LayerSparsity, WidthSparsity
from sparseplan.trainer.data import DataSplits, Split
from sparseplan.trainer.masks import masked_layers, update_masks
from sparseplan.trainer.sas import convert
from sparseplan.trainer.store import RunFolder


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


def test_what_was_trained_otherwise_does_not_stand_for_it(few: DataSplits, tmp_path: Path) -> None:
    options = ExperimentOptions(data=tmp_path, out=tmp_path / "o", epochs=1, seeds=(0,), subset=None, device="cpu")
    variants = tuple(Variant(name=name, network=lambda seed: net()) for name in ("one", "other"))
    only = replace(options, only=("other",))
    assert "| one |" not in run_variants("e", variants, few, options=only, say=str)
    with pytest.raises(InputError, match="after 1 epochs of 128 images, not 2 of 128"):
        run_variants("e", variants, few, options=replace(options, epochs=2), say=str)
    with pytest.raises(InputError, match="the variants of this experiment are one, other"):
        run_variants("e", variants, few, options=replace(options, only=("third",)), say=str)
    assert (options.out / "curves.svg").exists()
    assert not (options.out / "trade-off.svg").exists()
    assert list(options.out.glob("*/checkpoints")) == []


def test_a_training_that_was_not_written_down_is_gone_on_with(
    few: DataSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExperimentOptions(data=tmp_path, out=tmp_path / "o", epochs=1, seeds=(0,), subset=None, device="cpu")
    variants = (Variant(name="one", network=lambda seed: net()),)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(variant, "count_work", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_variants("e", variants, few, options=options, say=str)
    assert "| one |" in run_variants("e", variants, few, options=options, say=str)


def test_times_of_targets_make_the_trade_off(tmp_path: Path) -> None:
    base = Outcome(
        experiment="e", variant="mix 2x", seed=0, epochs=0, train_images=1, validation_error_frac=0.1,
        test_error_frac=0.1, multiply_adds=1.0, parameters=1, weight_bytes=4, train_s=1.0,
        predicted_time_s=0.002, predicted_dense_time_s=0.004,
    )  # fmt: skip
    slower = base.model_copy(update={"variant": "mix 1.5x", "predicted_time_s": 0.003})
    measured = base.model_copy(update={"seed": 1, "time_s": 0.0025, "dense_time_s": 0.005})
    assert times_of(base) == (0.002, 0.004, "predicted")
    assert times_of(measured) == (0.0025, 0.005, "measured")
    assert "2 ms, 2.00x |  |" in table([base])
    assert "2.5 ms, 2.00x" in table([measured])
    plot_results(tmp_path, [base, slower], folder_of=lambda name, seed: RunFolder(tmp_path / name))
    assert (tmp_path / "trade-off.svg").read_text().startswith("<?xml")
    assert not (tmp_path / "curves.svg").exists()


def test_pruned_networks_are_timed_without_what_they_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_pruned, "LAYER_BUDGET_S", 0.01)
    monkeypatch.setattr(measure_pruned, "NETWORK_BUDGET_S", 0.01)
    monkeypatch.setattr(measure_pruned, "HOSTS", ("eager",))
    dense, image = net().eval(), torch.randn(4, 1, 8, 8)
    (group,) = (each for each in couple(dense, image, layers=["0", "2", "4"]).groups if each.name == "0")
    shapes = LayerSparsity(name="2", pattern=parse_pattern("shape"), sparsity=0.5)
    assignment = (WidthSparsity(group=group, kept=2), shapes)
    pruned = copy.deepcopy(dense)
    update_masks(masked_layers(pruned, assignment), done_frac=1.0)
    times = measure_pruned.measure_pruned(dense, pruned, assignment, image)
    assert times.layers.keys() == {"0", "2"}  # the linear lost nothing
    assert min(times.time_s, times.dense_time_s, *(time_s for pair in times.layers.values() for time_s in pair)) > 0
    with pytest.raises(InputError, match="the plan keeps 2 of 4"):
        measure_pruned.measure_pruned(dense, dense, assignment, image)


def test_rows_and_columns_are_those_of_the_paper() -> None:
    model = load_model("zoo:convnet")
    layers = masked_layers(model, _table_3(model))
    update_masks(layers, done_frac=1.0)
    assert groups_left(model) == {
        "conv1": "16/32 filters, 75/75 shapes",
        "conv2": "23/32 filters, 328/800 shapes",
        "conv3": "63/64 filters, 520/800 shapes",
    }


def test_blocks_go_where_the_loss_rises_least_not_where_weights_are_small() -> None:
    model = load_model("zoo:resnet20", seed=0)
    # Of large weights, but without any effect; of small ones, but with some.
    model.get_submodule("layer2.1.bn2").weight.data.fill_(5.0)
    model.get_submodule("layer2.1.conv2").weight.data.zero_()
    model.get_submodule("layer3.2.bn2").weight.data.fill_(0.5)
    split = Split(images=torch.randint(256, (32, 3, 32, 32), dtype=torch.uint8), labels=torch.arange(32) % 10)
    data = DataSplits(
        name="noise", train=split, validation=split, test=split, classes=tuple("0123456789"),
        mean=(0.5,) * 3, std=(0.3,) * 3, augment="none",
    )  # fmt: skip
    # Sure of its answers, so that whatever changes them costs a lot.
    model.get_submodule("linear").weight.data.mul_(100.0)
    model.eval()
    with batch_statistics(model):
        split.labels.copy_(model(data.normalise(split.images)).argmax(dim=1))
    (gone,) = shallower(1, data, model)
    assert gone.group.name == "layer2.1.conv1"
    assert gone.kept == 0


def test_filters_go_where_they_cost_least_until_arithmetic_suffices() -> None:
    model, image = net().eval(), torch.randn(2, 1, 8, 8)
    captured = capture(model, image).layers
    groups = couple(model, image, layers=["0", "2", "4"]).groups
    widths = tuple(GroupLevels(group=group, levels=(1, 2, group.units)) for group in groups)
    losses = tuple((10.0, 5.0, 0.0) if group.name == "0" else (0.2, 0.1, 0.0) for group in groups)
    axes = layer_axes(captured, list(groups))
    full = multiply_adds(captured, axes, [group.units for group in groups])
    assert full == 2 * count_work(model, image).multiply_adds
    kept = narrow_to(widths, losses, captured, fewer=1.5)
    assert kept["0"] == 4
    assert multiply_adds(captured, axes, [kept[group.name] for group in groups]) <= full / 1.5


def test_an_experiment_without_its_data_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lenet-ssl", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--seeds", "1"]) == 2
    assert "error: no folder" in capsys.readouterr().err
    assert len(EXPERIMENTS) == 10
