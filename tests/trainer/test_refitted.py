"""A plan that names a database of pruned layers starts from its refitted weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.ablation import WeightChoice
from sparseplan.planner.calibration import Calibration
from sparseplan.planner.pruned_layers import prune_layers
from sparseplan.planner.pruned_store import PrunedStore
from sparseplan.planner.schema import Candidate, LayerPlan, Plan
from sparseplan.trainer.assignment import LayerSparsity
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.loop import train
from sparseplan.trainer.refitted import refitted_weights
from sparseplan.trainer.schema import TrainConfig
from sparseplan.trainer.store import RunFolder

MakeNet = Callable[..., nn.Module]
CHOICES = (
    WeightChoice(layer="conv2", pattern="unstructured", sparsity=0.8),
    WeightChoice(layer="fc1", pattern="2:4", sparsity=0.5),
)
ASSIGNMENT = tuple(
    LayerSparsity(name=choice.layer, pattern=parse_pattern(choice.pattern), sparsity=choice.sparsity)
    for choice in CHOICES
)


@pytest.fixture(scope="module")
def dense(digits: DataSplits, make_net: MakeNet, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    net = make_net()
    train(net, digits, (), config=TrainConfig(epochs=3, batch_size=32), run_dir=tmp_path_factory.mktemp("dense"))
    return net


@pytest.fixture(scope="module")
def database(digits: DataSplits, dense: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("database")
    images = digits.normalise(digits.train.images[:256])
    calibration = Calibration(images=images, labels=digits.train.labels[:256])
    prune_layers(dense, CHOICES, calibration=calibration, store=PrunedStore(folder))
    return folder


def plan_with(folder: Path | None, choices: tuple[WeightChoice, ...] = CHOICES) -> Plan:
    moment = Interval(median=1.0, low=1.0, high=1.0)
    layers = tuple(
        LayerPlan.model_construct(
            name=choice.layer,
            chosen=Candidate(
                pattern=choice.pattern,
                sparsity=choice.sparsity,
                kernel="some",
                dtype="float32",
                time_s=moment,
                loss_increase=0.0,
                extrapolated=False,
            ),
        )
        for choice in choices
    )
    return Plan.model_construct(layers=layers, pruned_layers_path=None if folder is None else str(folder))


def copy_of(dense: nn.Module, make_net: MakeNet) -> nn.Module:
    net = make_net(3)
    net.load_state_dict(dense.state_dict())
    return net


def test_without_training_the_result_is_the_refitted_weights_and_better_than_magnitude(
    digits: DataSplits, dense: nn.Module, database: Path, make_net: MakeNet, tmp_path: Path
) -> None:
    refitted = refitted_weights(plan_with(database), dense)
    assert set(refitted) == {"conv2", "fc1"}
    config = TrainConfig(epochs=0)
    histories = [
        train(copy_of(dense, make_net), digits, ASSIGNMENT, config=config, run_dir=tmp_path / name, refitted=weights)
        for name, weights in (("obs", refitted), ("magnitude", {}))
    ]
    planned = load_file(RunFolder(tmp_path / "obs").planned_weights)
    assert torch.equal(planned["conv2.weight"], refitted["conv2"])
    assert torch.equal(planned["fc1.weight"], refitted["fc1"].flatten(1))
    before = dense.state_dict()
    assert not torch.equal(planned["bn2.running_mean"], before["bn2.running_mean"])
    losses = [history.validation_accuracy_frac for history in histories]
    assert losses[0] >= losses[1]


def test_training_keeps_the_masks_of_the_refitted_weights(
    digits: DataSplits, dense: nn.Module, database: Path, make_net: MakeNet, tmp_path: Path
) -> None:
    refitted = refitted_weights(plan_with(database), dense)
    net = copy_of(dense, make_net)
    history = train(
        net, digits, ASSIGNMENT, config=TrainConfig(epochs=1, batch_size=32), run_dir=tmp_path, refitted=refitted
    )
    assert [epoch.phase for epoch in history.epochs] == ["finetune"]
    assert torch.equal(net.conv2.weight != 0, refitted["conv2"] != 0)
    assert not torch.equal(net.conv2.weight, refitted["conv2"])
    by_magnitude = magnitude_mask(dense.conv2.weight.detach(), parse_pattern("unstructured"), 0.8)
    assert not torch.equal(refitted["conv2"] != 0, by_magnitude)


def test_a_database_of_other_weights_or_without_a_choice_is_refused(
    dense: nn.Module, database: Path, make_net: MakeNet, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="of other weights than the model has"):
        refitted_weights(plan_with(database), make_net(8))
    more = (*CHOICES, WeightChoice(layer="fc1", pattern="2:4", sparsity=0.25))
    with pytest.raises(InputError, match=r"no layer 'fc1' with 2:4 at 0\.25"):
        refitted_weights(plan_with(database, more), dense)
    with pytest.raises(InputError, match=r"cannot read database of pruned layers"):
        refitted_weights(plan_with(tmp_path / "gone"), dense)
    assert refitted_weights(plan_with(None), dense) == {}
