"""The compiled model is cut to the plan's widths, and computes what the trained zeros do."""

import pytest
import torch
from coupled_networks import NETWORKS, Residual, images, network
from torch import nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.planner.couple import couple
from sparseplan.planner.schema import Plan, WidthGroup, WidthPlan
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.narrow import narrowed_model
from sparseplan.trainer.assignment import assignment_of
from sparseplan.trainer.masks import masked_layers, update_masks


def groups_of(model: nn.Module) -> tuple[WidthGroup, ...]:
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return couple(model, images(), layers=layers).groups


def plan_of(kept: dict[WidthGroup, int]) -> Plan:
    widths = tuple(
        WidthPlan(group=group, kept=count, loss_increase=0.0, considered=(), reason="for the test")
        for group, count in kept.items()
    )
    return Plan.model_construct(model="test", input_shape=tuple(images().shape), widths=widths, layers=())


@pytest.mark.parametrize("kind", NETWORKS)
def test_compiled_is_smaller_and_equals_masked(kind: type[nn.Module]) -> None:
    model = network(kind)
    plan = plan_of({group: max(1, group.units // 2) for group in groups_of(model)})
    update_masks(masked_layers(model, assignment_of(plan)), done_frac=1.0)
    compiled = compile_model(model, plan, machine=detect_machine())
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-4, atol=1e-4)
    assert sum(p.numel() for p in compiled.parameters()) < 0.7 * sum(p.numel() for p in model.parameters())


def test_a_removed_branch_is_not_run() -> None:
    model = network(Residual)
    groups = {group.name: group for group in groups_of(model)}
    plan = plan_of({groups["conv3"]: 0, groups["conv1"]: 7})
    with pytest.raises(InputError, match="removes the branch of 'conv3'"):
        narrowed_model(model, plan)
    update_masks(masked_layers(model, assignment_of(plan)), done_frac=1.0)
    compiled = compile_model(model, plan, machine=detect_machine())
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-4, atol=1e-4)
    assert not {"conv3", "conv4"} & set(dict(compiled.named_modules()))
    assert compiled.get_submodule("conv1").out_channels == 7


def test_weights_without_the_zeros_are_refused() -> None:
    model = network(Residual)
    plan = plan_of({group: 3 for group in groups_of(model) if group.name == "conv1"})
    with pytest.raises(InputError, match=r"'conv1' has 16 channels that are not zero, the plan keeps 3 of 16"):
        narrowed_model(model, plan)


def test_a_plan_without_widths_leaves_the_model_alone() -> None:
    model = network(Residual)
    assert narrowed_model(model, plan_of({})) is model
