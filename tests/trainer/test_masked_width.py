"""Channels that several layers share go together in training, and stay away."""

from __future__ import annotations

import pytest
import torch
from coupled_networks import Grouped, Residual, images, network
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.planner.couple import couple
from sparseplan.planner.narrow import strongest_units, unit_strength
from sparseplan.planner.schema import WidthGroup
from sparseplan.trainer.assignment import LayerSparsity, WidthSparsity, assignment_sha256
from sparseplan.trainer.masks import hold_gradients, hold_optimizer, masked_layers, update_masks


def groups_of(model: nn.Module) -> dict[str, WidthGroup]:
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return {group.name: group for group in couple(model, images(), layers=layers).groups}


def removed(model: nn.Module, group: WidthGroup) -> list[int]:
    return (unit_strength(model, group) == 0).nonzero().flatten().tolist()


def test_all_of_a_unit_stays_zero_through_momentum_and_weight_decay() -> None:
    model = network(Residual).train()
    groups = groups_of(model)
    shared = next(group for group in groups.values() if len(group.slices) > 4)
    weakest = set(range(shared.units)) - set(strongest_units(model, shared, 12))
    layers = masked_layers(model, (WidthSparsity(group=shared, kept=12), WidthSparsity(group=groups["conv1"], kept=5)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    for step in range(6):
        optimizer.zero_grad()
        model(images()).square().mean().backward()
        hold_gradients(layers)
        optimizer.step()
        if step == 0:
            update_masks(layers, done_frac=1.0)
            hold_optimizer(layers, optimizer)
            gone = removed(model, shared)
            assert len(gone) == 8
    assert removed(model, shared) == gone
    assert len(weakest & set(gone)) >= 6  # one step moves the weights a little
    for name in ("norm2",):
        assert not model.get_submodule(name).weight[gone].any()
        assert not model.get_submodule(name).bias[gone].any()
    assert not model.shortcut.bias[gone].any()
    assert len(removed(model, groups["conv1"])) == 11
    assert [layer.zero_frac for layer in layers] == [pytest.approx(0.4), pytest.approx(11 / 16)]


def test_the_width_shrinks_by_the_cubic_schedule() -> None:
    model = network(Residual)
    group = groups_of(model)["conv1"]
    layers = masked_layers(model, (WidthSparsity(group=group, kept=4),))
    seen = []
    for done_frac in (0.25, 0.5, 0.75, 1.0):
        update_masks(layers, done_frac=done_frac)
        seen.append(len(removed(model, group)))
    assert seen == [round(12 * (1 - (1 - done) ** 3)) for done in (0.25, 0.5, 0.75, 1.0)]


def test_the_lasso_shrinks_doomed_units_everywhere_at_once() -> None:
    model = network(Grouped)
    group = groups_of(model)["stem"]
    assert group.units == 4
    layers = masked_layers(model, (WidthSparsity(group=group, kept=3),))
    survivors = strongest_units(model, group, 3)
    (doomed,) = set(range(4)) - set(survivors)
    before = {part.module: model.get_submodule(part.module).weight.detach().clone() for part in group.slices}
    # Three quarters of a unit: none goes yet by the schedule.
    update_masks(layers, done_frac=0.01, shrink={f"width of {group.name}": 1e-2})
    assert removed(model, group) == []
    for part in group.slices:
        weight, old = model.get_submodule(part.module).weight.detach(), before[part.module]
        if part.axis == "out":
            ratio = weight / old
            assert torch.allclose(ratio[part.channels([doomed])], ratio[doomed].flatten()[0])
            assert float(ratio[doomed].flatten()[0]) < 0.99
            assert torch.equal(weight[part.channels(survivors)], old[part.channels(survivors)])
    update_masks(layers, done_frac=0.01, shrink={f"width of {group.name}": 1e3})
    assert removed(model, group) == [doomed]


def test_a_pattern_skips_in_what_the_width_leaves() -> None:
    model = network(Residual)
    group = groups_of(model)["conv1"]
    inner = LayerSparsity(name="conv2", pattern=parse_pattern("unstructured"), sparsity=0.5)
    layers = masked_layers(model, (WidthSparsity(group=group, kept=4), inner))
    update_masks(layers, done_frac=1.0)
    gone = removed(model, group)
    left = [unit for unit in range(16) if unit not in gone]
    weight = model.conv2.weight.detach()
    assert not weight[:, gone].any()
    assert float((weight[:, left] == 0).double().mean()) == pytest.approx(0.5, abs=1e-3)


def test_a_branch_goes_as_a_whole_and_at_the_end() -> None:
    model = network(Residual)
    group = groups_of(model)["conv3"]
    layers = masked_layers(model, (WidthSparsity(group=group, kept=0),))
    update_masks(layers, done_frac=0.99)
    assert len(removed(model, group)) == group.units - 1
    assert model.conv4.bias.any()
    update_masks(layers, done_frac=1.0)
    for name in group.branch:
        assert not any(parameter.any() for parameter in model.get_submodule(name).parameters())


def test_fingerprints_tell_widths_apart() -> None:
    group = groups_of(network(Residual))["conv1"]
    hashes = {assignment_sha256((WidthSparsity(group=group, kept=kept),)) for kept in (3, 4)}
    assert len(hashes | {assignment_sha256(())}) == 3


def test_a_model_without_the_modules_is_refused() -> None:
    group = groups_of(network(Residual))["conv1"]
    with pytest.raises(InputError, match="narrows 'conv1', which Sequential does not have"):
        masked_layers(nn.Sequential(nn.Linear(2, 2)), (WidthSparsity(group=group, kept=3),))
