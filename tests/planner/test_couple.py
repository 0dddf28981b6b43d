"""Width groups of small networks: what torch-pruning finds, what it cannot, and that each group can be cut."""

import copy
from typing import Any

import pytest
import torch
from coupled_networks import NETWORKS, Attention, Grouped, Joining, Residual, images, network
from torch import Tensor, nn

from sparseplan.planner.branches import find_branches, remove_branches
from sparseplan.planner.couple import Coupling, couple
from sparseplan.planner.narrow import mask_units, narrow, strongest_units, unit_strength
from sparseplan.planner.schema import ChannelSlice, WidthGroup


def coupling_of(model: nn.Module, example: Tensor | None = None) -> Coupling:
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return couple(model, images() if example is None else example, layers=layers)


def group_of(coupling: Coupling, layer: str) -> WidthGroup:
    (found,) = [
        group for group in coupling.groups if any(part.module == layer and part.axis == "out" for part in group.slices)
    ]
    return found


def slices(group: WidthGroup) -> dict[tuple[str, str], tuple[tuple[int, ...], int]]:
    return {(part.module, part.axis): (part.offsets, part.run) for part in group.slices}


def test_an_addition_couples_its_operands() -> None:
    coupling = coupling_of(network(Residual))
    sum_ = group_of(coupling, "conv2")
    assert sum_.units == 20
    assert set(slices(sum_)) == {
        *((name, "out") for name in ("conv2", "norm2", "shortcut", "conv4")),
        *((name, "in") for name in ("conv3", "head")),
    }
    assert slices(group_of(coupling, "conv1")).keys() == {("conv1", "out"), ("norm1", "out"), ("conv2", "in")}
    assert [fixed.name for fixed in coupling.fixed] == ["head"]
    assert coupling.fixed[0].reason == "it is an output of the network"


def test_a_concatenation_moves_the_columns_and_flattening_spreads_them() -> None:
    coupling = coupling_of(network(Joining))
    two = group_of(coupling, "two")
    assert slices(two) == {("two", "out"): ((0,), 1), ("after", "in"): ((4,), 1), ("last", "in"): ((4,), 1)}
    assert slices(group_of(coupling, "last"))["head", "in"] == ((12,), 1)
    assert len(coupling.groups) == 6


class JoinedAndFlattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(8 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.one(x), self.two(x)], dim=1).flatten(1))


def test_joined_channels_that_are_flattened_are_left_alone() -> None:
    """torch-pruning does not spread the place in the concatenation over the pixels."""
    coupling = coupling_of(network(JoinedAndFlattened))
    reasons = {fixed.name: fixed.reason for fixed in coupling.fixed}
    assert reasons["two"] == "cut there, the model does not compute what zeros in its place do"


def test_flattening_spreads_a_channel_over_its_pixels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 5))
    assert slices(group_of(coupling_of(model), "0")) == {("0", "out"): ((0,), 1), ("3", "in"): ((0,), 64)}


def test_groups_of_a_convolution_lose_one_channel_each() -> None:
    coupling = coupling_of(network(Grouped))
    residual = group_of(coupling, "project")
    assert residual.units == 4
    assert slices(residual)["grouped", "in"] == ((0, 4, 8, 12), 1)
    assert slices(residual)["stem", "out"] == ((0, 4, 8, 12), 1)
    assert group_of(coupling, "grouped").units == 8
    inner = group_of(coupling, "depthwise")
    assert slices(inner)["depthwise", "out"] == ((0,), 1)
    assert slices(inner).keys() >= {("expand", "out"), ("project", "in")}


def test_heads_are_found_by_own_code() -> None:
    """torch-pruning names 3 x 24 columns of an output projection of 24: it does not see heads."""
    coupling = coupling_of(network(Attention))
    fused = group_of(coupling, "first.qkv")
    assert fused.units == 4
    assert slices(fused) == {("first.qkv", "out"): ((0, 24, 48), 6), ("first.proj", "in"): ((0,), 6)}
    assert [(head.attribute, head.per_unit) for head in fused.head_counts] == [("heads", 1)]
    separate = group_of(coupling, "second.query")
    assert set(slices(separate)) == {
        *((f"second.{each}", "out") for each in ("query", "key", "value")),
        ("second.out", "in"),
    }
    assert {(head.attribute, head.per_unit) for head in separate.head_counts} == {
        ("num_heads", 1),
        ("all_head_size", 8),
    }
    assert group_of(coupling, "up").units == 40
    (reason,) = [fixed.reason for fixed in coupling.fixed if fixed.name == "embed"]
    assert "LayerNorm" in reason


@pytest.mark.parametrize("kind", NETWORKS)
def test_cut_for_good_computes_what_zeros_do(kind: type[nn.Module]) -> None:
    model = network(kind)
    coupling = coupling_of(model)
    assert coupling.groups
    kept = {group: strongest_units(model, group, max(1, group.units // 2)) for group in coupling.groups}
    masked, cut = copy.deepcopy(model), copy.deepcopy(model)
    for group, units in kept.items():
        mask_units(masked, group, units)
    narrow(cut, kept)
    with torch.no_grad():
        torch.testing.assert_close(cut(images()), masked(images()), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in cut.parameters()) < 0.7 * sum(p.numel() for p in model.parameters())
    for group, units in kept.items():
        assert (unit_strength(masked, group) > 0).nonzero().flatten().tolist() == units


def test_the_model_is_left_as_it_was() -> None:
    model = network(Attention)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    coupling_of(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.first.heads == 4
    assert not any(module._forward_hooks for module in model.modules())


class PaddedShortcut(nn.Module):
    """CIFAR's ResNet: a shortcut that takes every second pixel and pads zero channels on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.head(torch.relu(shortcut + self.conv2(torch.relu(self.conv1(x)))).mean(dim=(2, 3)))


def test_a_shortcut_that_torch_pruning_gets_wrong_is_left_alone() -> None:
    """It takes the slice of pixels for one of channels, and does not see that padding moves them."""
    coupling = coupling_of(network(PaddedShortcut))
    assert [group.name for group in coupling.groups] == ["conv1"]
    assert (
        "does not compute what zeros in its place do" in {fixed.name: fixed.reason for fixed in coupling.fixed}["stem"]
    )


class OutputToo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.one(x)
        return x, self.two(x)


def test_what_the_network_returns_is_not_cut() -> None:
    assert coupling_of(network(OutputToo)).groups == ()


class Untraceable(Residual):
    def forward(self, x: Any) -> Tensor:
        if not isinstance(x, Tensor) or x.requires_grad or bool(torch.isnan(x).any()):
            raise ValueError("numbers wanted")
        return super().forward(x)


def test_without_a_trace_no_branch_is_removable() -> None:
    coupling = coupling_of(network(Untraceable))
    assert coupling.groups
    assert all(not group.branch for group in coupling.groups)


def test_a_layer_that_is_not_planned_holds_its_channels() -> None:
    model = network(Residual)
    coupling = couple(model, images(), layers=["stem", "conv1", "conv2", "conv3", "conv4", "head"])
    reasons = {fixed.name: fixed.reason for fixed in coupling.fixed}
    assert "shortcut, which is not planned" in reasons["conv2"]
    assert {group.name for group in coupling.groups} == {"conv1", "conv3"}


def test_branches_beside_a_shortcut() -> None:
    model = network(Residual)
    coupling = coupling_of(model)
    assert group_of(coupling, "conv1").branch == ("conv1", "conv2", "norm1", "norm2")
    assert group_of(coupling, "conv3").branch == ("conv3", "conv4", "norm3")
    assert group_of(coupling, "conv2").branch == ()
    masked = copy.deepcopy(model)
    mask_units(masked, group_of(coupling, "conv3"), [])
    traced = torch.fx.symbolic_trace(copy.deepcopy(model))
    remove_branches(traced, {frozenset(group_of(coupling, "conv3").branch)})
    assert "conv4" not in dict(traced.named_modules())
    with torch.no_grad():
        torch.testing.assert_close(traced(images()), masked(images()), rtol=1e-4, atol=1e-5)


def test_a_branch_that_something_else_reads_is_none() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return (x + y) * y

    assert find_branches(torch.fx.symbolic_trace(Read())) == ()


def test_channels_of_units() -> None:
    part = ChannelSlice(module="m", axis="out", offsets=(0, 12), run=3)
    assert part.channels([1, 3]) == [3, 4, 5, 9, 10, 11, 15, 16, 17, 21, 22, 23]
    assert part.channels_per_unit == 6
