"""From a model to a plan, on a machine of known speed."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.spec import Machine
from sparseplan.planner.explain import explain
from sparseplan.planner.make_plan import make_plan
from sparseplan.planner.request import PlanContext, PlanRequest
from sparseplan.planner.schema import Plan, Target
from sparseplan.planner.sensitivity import Calibration

MakeContext = Callable[..., PlanContext]


def request(**changes: Any) -> PlanRequest:
    values: dict[str, Any] = {
        "model_spec": "test:net",
        "example": torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
        "target": Target(speedup=1.5),
        "patterns": ("unstructured", "filter"),
        **changes,
    }
    return PlanRequest(**values)


def sure_time_holds(plan: Plan, speedup: float) -> bool:
    """The rule of the solver, recomputed from the document: errors of one kernel add up, others in quadrature."""
    errors: dict[str, float] = {}
    planned = dense = plan.totals.rest_time_s.median
    rest_spread = plan.totals.rest_time_s.high - plan.totals.rest_time_s.median
    errors[""] = rest_spread * (1.0 - 1.0 / speedup)
    for layer in plan.layers:
        chosen, rival = layer.chosen.time_s, layer.dense.time_s
        planned += layer.calls * chosen.median
        dense += layer.calls * rival.median
        for candidate, sign in ((layer.chosen, 1.0), (layer.dense, -1.0 / speedup)):
            spread = layer.calls * (candidate.time_s.high - candidate.time_s.median)
            errors[candidate.kernel] = errors.get(candidate.kernel, 0.0) + sign * spread
    upper = planned + math.sqrt(sum(error**2 for error in errors.values()))
    return upper <= dense / speedup * (1.0 + 1e-5)


def test_feasible_target_is_met_at_the_upper_quantile(small_net: nn.Module, make_context: MakeContext) -> None:
    plan = make_plan(small_net, request(), context=make_context({"conv2d_unstructured_fake": 0.5}))
    assert plan.solver.status == "optimal"
    assert sure_time_holds(plan, 1.5)
    assert any(layer.chosen != layer.dense for layer in plan.layers)
    assert plan.totals.best_reachable_speedup >= 1.5
    assert plan.totals.loss_increase == pytest.approx(
        sum(layer.chosen.loss_increase for layer in plan.layers) + sum(width.loss_increase for width in plan.widths)
    )
    assert [layer.name for layer in plan.layers] == ["stem", "wide", "grouped", "depthwise", "head"]
    for layer in plan.layers:
        assert layer.problem.pattern == layer.chosen.pattern
        assert layer.problem.sparsity == layer.chosen.sparsity
        assert len(layer.considered) <= 12


def test_a_higher_target_costs_more_loss_and_less_time(small_net: nn.Module, make_context: MakeContext) -> None:
    context = make_context({"conv2d_unstructured_fake": 0.5})
    plans = [
        make_plan(small_net, request(target=Target(speedup=speedup)), context=context) for speedup in (1.2, 2.0, 4.0)
    ]
    losses = [plan.totals.loss_increase for plan in plans]
    times = [plan.totals.planned_time_s.median for plan in plans]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]
    assert times == sorted(times, reverse=True)


def test_latency_target(small_net: nn.Module, make_context: MakeContext) -> None:
    context = make_context()
    dense_s = make_plan(small_net, request(), context=context).totals.dense_time_s.median
    plan = make_plan(small_net, request(target=Target(latency_s=dense_s / 2)), context=context)
    assert plan.solver.status == "optimal"
    assert plan.totals.planned_time_s.high <= dense_s / 2 * (1.0 + 1e-5)
    impossible = make_plan(small_net, request(target=Target(latency_s=1e-9)), context=context)
    assert impossible.solver.status == "infeasible"
    assert "target latency 1e-06 ms cannot be met; best predicted" in impossible.solver.message


def test_impossible_target_says_what_can_be_reached(small_net: nn.Module, make_context: MakeContext) -> None:
    plan = make_plan(small_net, request(target=Target(speedup=5000.0)), context=make_context())
    assert plan.solver.status == "infeasible"
    best = plan.totals.best_reachable_speedup
    assert f"target speedup 5000 cannot be met; best predicted {best:.2f}x" in plan.solver.message
    assert 1.0 < best < 5000.0
    again = make_plan(small_net, request(target=Target(speedup=0.98 * best)), context=make_context())
    assert again.solver.status == "optimal"
    assert make_plan(small_net, request(target=Target(speedup=1.02 * best)), context=make_context()).solver.status == (
        "infeasible"
    )


def test_not_worth_it_when_nothing_beats_dense(small_net: nn.Module, make_context: MakeContext) -> None:
    slow = dict.fromkeys(("conv2d_unstructured_fake", "linear_unstructured_fake", "conv2d_compact_fake"), 0.01)
    plan = make_plan(small_net, request(patterns=("unstructured",)), context=make_context(slow))
    assert plan.solver.status == "not_worth_it"
    assert all(layer.chosen == layer.dense for layer in plan.layers)
    assert plan.totals.planned_time_s == plan.totals.dense_time_s
    assert "would need > 99" in plan.layers[1].reason


def test_uncertain_predictions_are_told_from_slow_kernels(small_net: nn.Module, make_context: MakeContext) -> None:
    plan = make_plan(small_net, request(patterns=("unstructured",)), context=make_context(spread_frac=60.0))
    assert plan.solver.status == "not_worth_it"
    assert "predictions are too uncertain" in plan.solver.message
    assert "may take" in plan.layers[1].reason


def test_a_kernel_that_may_be_slower_is_never_chosen(small_net: nn.Module, make_context: MakeContext) -> None:
    plan = make_plan(
        small_net, request(target=Target(speedup=50.0)), context=make_context({"conv2d_unstructured_fake": 0.1}, 0.3)
    )
    for layer in plan.layers:
        if layer.chosen.pattern != "dense":
            assert layer.chosen.time_s.high < layer.dense.time_s.median


def test_conversions_of_a_foreign_layout_are_paid_for(small_net: nn.Module, make_context: MakeContext) -> None:
    context = make_context()
    foreign = tuple(
        replace(kernel, layout="nhwc") if kernel.name == "conv2d_unstructured_fake" else kernel
        for kernel in context.registry
    )
    target = request(target=Target(speedup=500.0), patterns=("unstructured",))
    same = make_plan(small_net, target, context=context)
    other = make_plan(small_net, target, context=replace(context, registry=foreign))
    for layer, converted in zip(same.layers, other.layers, strict=True):
        problem = layer.problem
        if problem.op == "linear":
            assert converted.chosen.time_s == layer.chosen.time_s
        elif converted.chosen.pattern == "unstructured":
            extra_s = 2.0 * (problem.input_bytes + problem.output_bytes) / 1e10
            assert converted.chosen.time_s.median == pytest.approx(layer.chosen.time_s.median + extra_s)


def test_accuracy_drop_target(trained_net: nn.Module, digits: tuple[Tensor, Tensor], make_context: MakeContext) -> None:
    images, labels = digits
    calibration = Calibration(images=images[1500:], labels=labels[1500:])
    before = {name: value.clone() for name, value in trained_net.state_dict().items()}
    speeds = []
    for points in (1.0, 20.0):
        plan = make_plan(
            trained_net,
            request(target=Target(max_accuracy_drop_points=points), calibration=calibration, sensitivity_budget_s=2.0),
            context=make_context(),
        )
        assert plan.sensitivity_source == "calibration"
        assert f"of the {points:g} points allowed" in plan.solver.message
        speeds.append(plan.totals.dense_time_s.median / plan.totals.planned_time_s.median)
    assert 1.0 < speeds[0] < speeds[1]
    assert all(torch.equal(before[name], value) for name, value in trained_net.state_dict().items())


def test_accuracy_drop_of_an_untrained_network_is_agreement(small_net: nn.Module, make_context: MakeContext) -> None:
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    plan = make_plan(
        small_net,
        request(
            target=Target(max_accuracy_drop_points=30.0),
            calibration=Calibration(images=images),
            sensitivity_budget_s=1.0,
        ),
        context=make_context(),
    )
    assert plan.solver.status == "optimal"
    assert plan.totals.planned_time_s.median < plan.totals.dense_time_s.median


def test_no_dense_kernel_in_the_dtype_is_unsupported(small_net: nn.Module, make_context: MakeContext) -> None:
    with pytest.raises(UnsupportedError, match="layer 'stem': no dense kernel runs it in bfloat16"):
        make_plan(small_net, request(dtype_policy="bfloat16"), context=make_context())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": Target()}, "no target given"),
        ({"target": Target(speedup=2.0, model_bytes=-1.0)}, "model_bytes -1: allowed is a number above 0"),
        ({"target": Target(speedup=float("nan"))}, "above 0"),
        ({"target": Target(max_accuracy_drop_points=1.0)}, "needs calibration data"),
        ({"patterns": ("blocky",)}, "unknown sparsity pattern 'blocky'"),
    ],
)
def test_bad_requests(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        request(**changes)


def test_activation_patterns_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="sas:1:2"):
        request(patterns=("sas:1:2",))


def test_nan_weights_are_named(small_net: nn.Module, make_context: MakeContext) -> None:
    with torch.no_grad():
        small_net.get_parameter("wide.weight")[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="layer 'wide': 1 of 4608 weights are NaN or infinite"):
        make_plan(small_net, request(), context=make_context())


def test_model_without_layers(make_context: MakeContext) -> None:
    with pytest.raises(InputError, match="no Conv2d or Linear layer can be planned"):
        make_plan(nn.ReLU(), request(), context=make_context())


def test_machine_decides_what_may_run(small_net: nn.Module, make_context: MakeContext) -> None:
    context = make_context()
    needs = tuple(
        replace(kernel, isa="avx512") if "dense" not in kernel.name else kernel for kernel in context.registry
    )
    skipping = request(patterns=("unstructured",))
    without = make_plan(small_net, skipping, context=replace(context, registry=needs))
    assert without.solver.status == "not_worth_it"
    assert "no sparse kernel here can run this layer" in without.layers[0].reason
    able = replace(context, registry=needs, machine=Machine(isa=("baseline", "avx512")))
    assert make_plan(small_net, skipping, context=able).solver.status == "optimal"


def test_a_database_of_removed_weights_has_none_of_low_rank(tmp_path: Path) -> None:
    calibration = Calibration(images=torch.zeros(1, 3, 8, 8))
    assert request(patterns=("lowrank",)).patterns == ("lowrank",)
    with pytest.raises(UnsupportedError, match="'lowrank' removes no weights"):
        request(patterns=("lowrank",), pruned_layers=tmp_path, calibration=calibration)


def test_a_pattern_that_no_kernel_can_use_is_named(
    small_net: nn.Module, make_context: Callable[..., PlanContext]
) -> None:
    request = PlanRequest(
        model_spec="test:net",
        example=torch.randn(4, 1, 8, 8),
        target=Target(speedup=1.2),
        patterns=("unstructured", "64:2:16", "filter"),
    )
    plan = make_plan(small_net, request, context=make_context())
    (unusable,) = plan.unusable_patterns
    assert unusable.pattern == "64:2:16"
    assert unusable.reason == "no kernel skips it"
    for text in (explain(plan), explain(plan, plan.layers[0].name)):
        (line,) = [line for line in text.splitlines() if line.startswith("Pattern ")]
        assert line.startswith("Pattern 64:2:16: no kernel on this machine can use it in any layer")


def test_why_no_kernel_can_use_a_pattern_is_told_by_its_kernels(
    small_net: nn.Module, make_context: Callable[..., PlanContext]
) -> None:
    context = make_context()
    known = next(kernel for kernel in context.registry if kernel.name == "conv2d_unstructured_fake")
    there = replace(known, name="conv2d_vnm_fake", patterns=("v:n:m",), device="cuda")
    narrow = replace(
        known, name="conv2d_block_fake", patterns=("block",), why_unsupported=lambda problem, machine: "too narrow"
    )
    context = replace(context, registry=(*context.registry, there, narrow))
    request = PlanRequest(
        model_spec="test:net",
        example=torch.randn(4, 1, 8, 8),
        target=Target(speedup=1.2),
        patterns=("64:2:16", "block:16x1"),
    )
    reasons = {each.pattern: each.reason for each in make_plan(small_net, request, context=context).unusable_patterns}
    assert reasons["64:2:16"] == "its kernels run on a CUDA GPU only"
    assert "too narrow" in reasons["block:16x1"]
