"""What masks hold at zero is cut out of the network that takes the steps, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from coupled_networks import NETWORKS, Residual, images, network
from safetensors.torch import load_file
from torch import nn

from sparseplan.kernels.pattern import parse_pattern
from sparseplan.model_spec import load_model
from sparseplan.planner.couple import couple
from sparseplan.planner.eval_mode import evaluating
from sparseplan.planner.schema import WidthGroup
from sparseplan.trainer import Interrupted, learner
from sparseplan.trainer.assignment import Assignment, LayerSparsity, WidthSparsity
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.loop import train
from sparseplan.trainer.masked_width import MaskedWidth
from sparseplan.trainer.masks import masked_layers, update_masks
from sparseplan.trainer.schema import TrainConfig
from sparseplan.trainer.shrink import cut_copy
from sparseplan.trainer.store import RunFolder
from sparseplan.trainer.trainee import ShrunkTrainee, shrink

MakeNet = Callable[..., nn.Module]


def groups_of(model: nn.Module, x: torch.Tensor) -> dict[str, WidthGroup]:
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return {group.name: group for group in couple(model.eval(), x, layers=layers).groups}


def masked(model: nn.Module, kept: dict[str, int]) -> list[MaskedWidth]:
    groups = groups_of(model, images())
    layers = masked_layers(model, tuple(WidthSparsity(group=groups[name], kept=count) for name, count in kept.items()))
    update_masks(layers, done_frac=1.0)
    return [layer for layer in layers if isinstance(layer, MaskedWidth)]


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_cut_copy_computes_and_learns_what_the_masked_network_does(kind: type[nn.Module]) -> None:
    model = network(kind).double()
    groups = groups_of(model.float(), images())
    widths = masked(model, {name: max(1, group.units // 2) for name, group in groups.items()})
    model.double().train()
    cut = cut_copy(model, widths)
    assert cut is not None
    assert sum(each.numel() for each in cut.model.parameters()) < sum(each.numel() for each in model.parameters())
    x = images().double()
    full, small = model(x), cut.model(x)
    torch.testing.assert_close(small, full, atol=1e-12, rtol=1e-10)
    full.square().mean().backward()
    small.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in cut.model.named_parameters():
        torch.testing.assert_close(parameter.grad, cut.take(name, gradients[name]), atol=1e-12, rtol=1e-8, msg=name)
    states = model.state_dict()
    for name, value in cut.model.state_dict().items():
        torch.testing.assert_close(value, cut.take(name, states[name]), msg=name)


def test_a_branch_without_units_is_gone() -> None:
    model = network(Residual)
    widths = masked(model, {"conv3": 0, "conv1": 5})
    cut = cut_copy(model.train(), widths)
    assert cut is not None
    names = dict(cut.model.named_parameters())
    assert not {"conv3.weight", "conv4.weight", "norm3.weight"} & names.keys()
    assert names["conv1.weight"].shape[0] == 5
    torch.testing.assert_close(cut.model(images()), model(images()), atol=1e-5, rtol=1e-5)


def test_an_operation_in_place_behind_a_removed_branch_leaves_the_shortcut_alone() -> None:
    model = load_model("zoo:resnet20").train()
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with evaluating(model):
        groups = {group.name: group for group in couple(model, torch.randn(2, 3, 32, 32), layers=layers).groups}
    widths = masked_layers(model, (WidthSparsity(group=groups["layer1.1.conv1"], kept=0),))
    update_masks(widths, done_frac=1.0)
    cut = cut_copy(model, [width for width in widths if isinstance(width, MaskedWidth)])
    assert cut is not None
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(cut.model(x), model(x), atol=1e-4, rtol=1e-4)
    cut.model(x).square().mean().backward()
    assert cut.model.get_parameter("conv1.weight").grad is not None


def test_what_is_put_back_lies_where_it_was_taken() -> None:
    model = network(Residual).to(memory_format=torch.channels_last)
    cut = cut_copy(model, masked(model, {"conv1": 5}))
    assert cut is not None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in cut.model.state_dict().items():
        cut.put(name, model.state_dict()[name], value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    cut.put("conv1.weight", model.conv1.weight, torch.ones_like(cut.model.get_parameter("conv1.weight")))
    assert float(model.conv1.weight.detach().sum()) == 5 * 12 * 9


def test_shared_parameters_are_not_parted() -> None:
    model = network(Residual)
    widths = masked(model, {"conv1": 5})
    model.norm2.weight = model.norm.weight
    assert cut_copy(model, widths) is None


def assignment(net: nn.Module, digits: DataSplits) -> Assignment:
    groups = groups_of(net, torch.zeros(2, 1, 8, 8))
    shapes = LayerSparsity(name="conv2", pattern=parse_pattern("shape"), sparsity=0.5)
    return (
        WidthSparsity(group=groups["conv1"], kept=12),
        WidthSparsity(group=groups["fc1"], kept=20),
        shapes,
        LayerSparsity(name="fc2", pattern=parse_pattern("unstructured"), sparsity=0.5),
    )


@pytest.fixture
def widths_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filters of conv1 in the network that took the steps of each epoch that was cut."""
    seen: list[int] = []

    def noted(*args: Any) -> ShrunkTrainee | None:
        shrunk = shrink(*args)
        if shrunk is not None:
            seen.append(len(shrunk.small.model.get_parameter("conv1.weight")))
        return shrunk

    monkeypatch.setattr(learner, "shrink", noted)
    return seen


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("while_pruning", [False, True])
def test_training_is_that_of_the_masked_network(
    digits: DataSplits,
    make_net: MakeNet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    widths_seen: list[int],
    optimizer: str,
    while_pruning: bool,
) -> None:
    """Weights, statistics, the optimiser's memory, masks and the moving average, to rounding."""
    config = TrainConfig(
        epochs=4 if while_pruning else 3,
        batch_size=20 if while_pruning else 100,
        learning_rate=1e-4 if while_pruning else 1e-3,
        optimizer=optimizer,
        prune_frac=0.75 if while_pruning else 0.34,
        ema_decay=0.9,
    )
    cut, whole = make_net(), make_net()
    for net in (cut, whole):
        net.dropout.p = 0.0  # it draws fewer numbers where there are fewer channels
    train(cut, digits, assignment(cut, digits), config=config, run_dir=tmp_path / "cut")
    assert len(widths_seen) == (3 if while_pruning else 1)
    assert widths_seen[-1] == 12
    assert sorted(widths_seen, reverse=True) == widths_seen
    monkeypatch.setattr(learner, "shrink", lambda *_: None)
    train(whole, digits, assignment(whole, digits), config=config, run_dir=tmp_path / "whole")
    ours, theirs = (load_file(RunFolder(tmp_path / name).last_checkpoint) for name in ("cut", "whole"))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        # The statistics of channels that are gone stand still; zeros follow on them.
        alive = theirs[f"{name.rpartition('.')[0]}.weight"] != 0 if "running" in name else ...
        torch.testing.assert_close(ours[name][alive], value[alive], atol=2e-4, rtol=1e-3, msg=name)
    weights = load_file(RunFolder(tmp_path / "cut").planned_weights)
    assert int(weights["conv1.weight"].flatten(1).any(dim=1).sum()) == 12
    assert int(weights["fc1.weight"].any(dim=1).sum()) == 20


@pytest.mark.parametrize("epoch", [3, 4])
def test_an_interrupted_run_ends_with_the_same_weights(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path, epoch: int
) -> None:
    """Also where it went on while channels were being cut: that is so in epochs 2 and 3."""
    config = TrainConfig(epochs=4, batch_size=30, learning_rate=0.05, prune_frac=0.75, ema_decay=0.9, distillation=0.5)

    def stop(name: str, done: float, total: float) -> None:
        if name == f"training epoch {epoch} of 4":
            raise KeyboardInterrupt

    nets = [make_net() for _ in range(3)]
    target = assignment(make_net(), digits)
    train(nets[0], digits, target, config=config, run_dir=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(nets[1], digits, target, config=config, run_dir=tmp_path / "parts", progress=stop)
    train(nets[2], digits, target, config=config, run_dir=tmp_path / "parts", resume=True)
    for name in ("planned_weights", "last_checkpoint"):
        ours, theirs = (load_file(getattr(RunFolder(tmp_path / part), name)) for part in ("parts", "whole"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
