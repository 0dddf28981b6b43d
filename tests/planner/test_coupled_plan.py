"""From a model whose layers share widths to a plan, to zeros, to a smaller model."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from coupled_networks import NETWORKS, Grouped, Joining, Residual, images, network
from torch import nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.planner import expected_loss
from sparseplan.planner.ablation import WeightChoice
from sparseplan.planner.carry_zeros import Stitcher, Stitching
from sparseplan.planner.explain import explain
from sparseplan.planner.make_plan import make_plan
from sparseplan.planner.narrow import living_units
from sparseplan.planner.request import PlanContext, PlanRequest
from sparseplan.planner.schema import Plan, Target
from sparseplan.planner.sensitivity import Calibration
from sparseplan.planner.store import load_plan, save_plan
from sparseplan.planner.width_levels import asked_counts, staircase
from sparseplan.planner.widths import GroupLevels
from sparseplan.runtime.compile import compile_model
from sparseplan.trainer.assignment import assignment_of
from sparseplan.trainer.masks import masked_layers, take_refitted, update_masks
from sparseplan.trainer.refitted import refitted_weights

MakeContext = Callable[..., PlanContext]


def plan_of(model: nn.Module, context: PlanContext, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "model_spec": "test:net",
        "example": images(),
        "target": Target(speedup=1.7),
        "patterns": ("filter",),
        "shared_widths": True,
        **changes,
    }
    return make_plan(model, PlanRequest(**values), context=context)


def channels(plan: Plan, name: str, axis: str) -> int:
    """What the groups say that a layer has, by loops."""
    layer = next(layer for layer in plan.layers if layer.name == name)
    full = layer.full_problem
    total = full.c_in if axis == "in" else full.c_out
    for width in plan.widths:
        for part in width.group.slices:
            depthwise = full.groups == full.c_in == full.c_out
            if part.module == name and (part.axis == axis or depthwise):
                total -= (width.group.units - width.kept) * len(part.offsets) * part.run
    return total


@pytest.mark.parametrize("kind", NETWORKS)
def test_planned_trained_compiled(kind: type[nn.Module], make_context: MakeContext) -> None:
    model = network(kind)
    plan = plan_of(model, make_context())
    assert plan.solver.status == "optimal"
    assert plan.solver.gap_frac is not None
    assert plan.solver.gap_frac <= 1e-3
    assert plan.totals.dense_time_s.median / plan.totals.planned_time_s.median >= 1.7
    assert any(width.kept < width.group.units for width in plan.widths)
    for layer in plan.layers:
        assert layer.chosen.pattern == "dense"
        assert layer.problem.c_in == channels(plan, layer.name, "in")
        assert layer.problem.c_out == channels(plan, layer.name, "out")
        flop_s = layer.problem.flop_dense_equiv / 1e9
        assert layer.chosen.time_s.median == pytest.approx(flop_s)
    update_masks(masked_layers(model, assignment_of(plan)), done_frac=1.0)
    compiled = compile_model(model, plan, machine=detect_machine())
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-4, atol=1e-4)
    for layer in plan.layers:
        module = compiled.get_submodule(layer.name)
        assert module.weight.shape[0] == layer.problem.c_out


@pytest.mark.parametrize("kind", [Residual, Joining, Grouped])
def test_no_other_widths_meet_the_target_with_less_loss(kind: type[nn.Module], make_context: MakeContext) -> None:
    plan = plan_of(network(kind), make_context(spread_frac=0.0), target=Target(speedup=2.0))
    rest_s = plan.totals.rest_time_s.median
    budget_s = plan.totals.dense_time_s.median / 2.0
    # What lies between the layers shrinks as well, by less than all of it: the loss is between the two extremes.
    bounds = [_least_loss(plan, budget_s - share * rest_s) for share in (0.0, 1.0)]
    assert bounds[0] * (1.0 - 1e-3) <= plan.totals.loss_increase <= bounds[1] * (1.0 + 1e-3)


def _least_loss(plan: Plan, budget_s: float) -> float:
    """Brute force over every combination of levels."""
    layers = {layer.name: layer for layer in plan.layers}
    terms: dict[str, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {name: ([], []) for name in layers}
    for number, width in enumerate(plan.widths):
        for part in width.group.slices:
            if part.module in layers:
                each = number, len(part.offsets) * part.run
                terms[part.module][part.axis == "out"].append(each)
    best = float("inf")
    for levels in itertools.product(*(width.considered for width in plan.widths)):
        loss = sum(level.loss_increase for level in levels)
        if loss >= best:
            continue
        time_s = 0.0
        for name, layer in layers.items():
            full = layer.full_problem
            depthwise = full.groups == full.c_in == full.c_out
            sizes = []
            for side, total in ((0, full.c_in), (1, full.c_out)):
                for number, each in terms[name][side]:
                    total -= each * (plan.widths[number].group.units - levels[number].kept)
                sizes.append(total)
            if depthwise:
                sizes[0] = sizes[1]
            groups = sizes[1] if depthwise else full.groups
            per_output = sizes[0] / groups * full.kernel[0] * full.kernel[1]
            time_s += 2.0 * full.n * full.h_out * full.w_out * sizes[1] * per_output / 1e9
        if time_s <= budget_s * (1.0 + 1e-6):
            best = loss
    return best


def test_patterns_skip_in_what_the_widths_leave(make_context: MakeContext) -> None:
    model = network(Residual)
    plan = plan_of(model, make_context(), patterns=("filter+unstructured",), target=Target(speedup=8.0))
    assert plan.solver.status == "optimal"
    narrow = [layer for layer in plan.layers if layer.problem.weight_shape != layer.full_problem.weight_shape]
    assert any(layer.chosen.pattern == "unstructured" for layer in narrow)
    layers = masked_layers(model, assignment_of(plan))
    update_masks(layers, done_frac=1.0)
    for layer in plan.layers:
        if layer.chosen.pattern == "unstructured":
            weight = model.get_submodule(layer.name).weight.detach().flatten(1)
            left = layer.problem.weight_count * (1.0 - layer.chosen.sparsity)
            assert int((weight != 0).sum()) == pytest.approx(left, abs=1.0)


def test_whole_branches_go(make_context: MakeContext) -> None:
    model = network(Residual)
    plan = plan_of(model, make_context(), patterns=("filter", "depth"), target=Target(speedup=30.0))
    assert plan.solver.status == "optimal"
    gone = [width for width in plan.widths if width.kept == 0]
    assert gone
    for width in gone:
        for layer in plan.layers:
            if layer.name in width.group.branch:
                assert layer.chosen.kernel == "removed"
                assert layer.chosen.time_s.median == 0.0
                assert "branch" in explain(plan, layer.name)
    update_masks(masked_layers(model, assignment_of(plan)), done_frac=1.0)
    compiled = compile_model(model, plan, machine=detect_machine())
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-4, atol=1e-4)


def test_depth_alone_removes_branches_and_narrows_nothing(make_context: MakeContext) -> None:
    plan = plan_of(network(Residual), make_context(), patterns=("depth",), target=Target(speedup=1.3))
    assert plan.solver.status == "optimal"
    assert {width.kept for width in plan.widths} <= {0, *(width.group.units for width in plan.widths)}
    assert any(width.kept == 0 for width in plan.widths)


def test_calibration_orders_widths_and_leaves_the_model_alone(
    trained_net: nn.Module, digits: tuple[torch.Tensor, torch.Tensor], make_context: MakeContext
) -> None:
    pictures, labels = digits
    before = {name: value.clone() for name, value in trained_net.state_dict().items()}
    plan = plan_of(
        trained_net,
        make_context(),
        example=pictures[:4],
        calibration=Calibration(images=pictures[1500:], labels=labels[1500:]),
        sensitivity_budget_s=1.0,
    )
    assert plan.solver.status == "optimal"
    for width in plan.widths:
        losses = [level.loss_increase for level in width.considered]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] == 0.0
    assert all(torch.equal(before[name], value) for name, value in trained_net.state_dict().items())


def test_a_plan_with_widths_survives_the_file(make_context: MakeContext, tmp_path: Any) -> None:
    plan = plan_of(network(Joining), make_context())
    save_plan(tmp_path / "plan.json", plan)
    assert load_plan(tmp_path / "plan.json") == plan


def test_widths_are_explained(make_context: MakeContext) -> None:
    plan = plan_of(network(Residual), make_context())
    text = explain(plan)
    narrowed = next(width for width in plan.widths if width.kept < width.group.units)
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {narrowed.group.name} ")]
    assert f"{narrowed.kept} of {narrowed.group.units}" in line
    assert "head: it is an output of the network" in text
    layer = next(layer for layer in plan.layers if layer.problem.c_out < layer.full_problem.c_out)
    assert f"{layer.problem.c_in}x{layer.problem.c_out} channels instead of" in explain(plan, layer.name)


def test_only_edges_of_the_staircase_are_kept() -> None:
    times = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.9, 3.0]
    assert staircase(range(1, 9), times, most=8) == (4, 7, 8)
    assert staircase(range(1, 101), [float(each) for each in range(100)], most=4) == (1, 34, 67, 100)
    assert staircase((3,), [1.0], most=4) == (3,)


def test_few_counts_are_asked_of_many_units() -> None:
    assert asked_counts(5) == (1, 2, 3, 4, 5)
    assert asked_counts(2048)[0] == 32
    assert len(asked_counts(2048)) == 64
    assert asked_counts(100)[-1] == 100


@pytest.fixture
def both(digits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> dict[str, Any]:
    """What asks for shared widths and refitted weights together."""
    pictures, labels = digits
    return {
        "example": pictures[:4],
        "patterns": ("filter", "unstructured"),
        "target": Target(speedup=14.0),
        "calibration": Calibration(images=pictures[1500:1700], labels=labels[1500:1700]),
        "sensitivity_budget_s": 1.0,
        "search_budget_s": 1.0,
        "pruned_layers": tmp_path / "db",
    }


def test_widths_and_refitted_weights_are_planned_together(
    trained_net: nn.Module, make_context: MakeContext, both: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: value.clone() for name, value in trained_net.state_dict().items()}
    plan = plan_of(trained_net, make_context({"conv2d_unstructured_fake": 0.6}), **both)
    assert all(torch.equal(before[name], value) for name, value in trained_net.state_dict().items())
    assert plan.solver.status == "optimal"
    assert any(width.kept < width.group.units for width in plan.widths)
    assert any(layer.chosen.pattern == "unstructured" for layer in plan.layers)
    assert plan.pruned_layers_path == str(both["pruned_layers"])
    for name in ("estimate_sensitivity", "search_stitched", "width_losses"):
        monkeypatch.setattr(expected_loss, name, lambda *_, **__: pytest.fail("measured again"))
    again = plan_of(trained_net, make_context({"conv2d_unstructured_fake": 0.6}), **both)
    assert again.layers == plan.layers
    assert [width.kept for width in again.widths] == [width.kept for width in plan.widths]
    slower = plan_of(
        trained_net, make_context({"conv2d_unstructured_fake": 0.6}), **{**both, "target": Target(speedup=3.0)}
    )
    assert slower.solver.status == "optimal"
    assert slower.totals.loss_increase < plan.totals.loss_increase


def test_training_starts_from_refitted_weights_in_what_widths_leave(
    trained_net: nn.Module, make_context: MakeContext, both: dict[str, Any]
) -> None:
    plan = plan_of(trained_net, make_context({"conv2d_unstructured_fake": 0.6}), **both)
    model = copy.deepcopy(trained_net)
    refitted = refitted_weights(plan, model)
    layers = masked_layers(model, assignment_of(plan))
    take_refitted(layers, refitted)
    for layer in plan.layers:
        weight = model.get_submodule(layer.name).weight.detach()
        if layer.name in refitted:
            kept = weight != 0
            assert torch.equal(weight[kept], refitted[layer.name].reshape(weight.shape)[kept])
            assert int(kept.sum()) <= layer.problem.weight_count * (1.0 - layer.chosen.sparsity) + 1.0
            assert bool(kept.any())
    for width in plan.widths:
        assert len(living_units(model, width.group, width.kept)) == width.kept
    # The planner saw the same network.
    network = copy.deepcopy(trained_net)
    kept_of = Stitching(
        choices=tuple(
            WeightChoice(layer=layer.name, pattern=layer.chosen.pattern, sparsity=layer.chosen.sparsity)
            for layer in plan.layers
            if layer.name in refitted
        ),
        kept=tuple(width.kept for width in plan.widths),
    )
    groups = tuple(GroupLevels(group=width.group, levels=(width.group.units,)) for width in plan.widths)
    with Stitcher(network, groups, lambda choice: refitted[choice.layer]).carrying(kept_of), torch.no_grad():
        torch.testing.assert_close(network(both["example"]), model(both["example"]))
