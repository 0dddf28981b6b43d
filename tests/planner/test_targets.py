"""Several targets at once, the front, planning again from a database, and where ablations are spent."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.planner import expected_loss, sensitivity
from sparseplan.planner.ablation import Rise, WeightChoice
from sparseplan.planner.calibration import Calibration
from sparseplan.planner.carry_zeros import Stitching
from sparseplan.planner.make_plan import make_plan
from sparseplan.planner.request import PlanContext, PlanRequest
from sparseplan.planner.schema import Plan, Target
from sparseplan.planner.search_scales import search_scales
from sparseplan.planner.size_limit import solve_within_bytes
from sparseplan.planner.solve import Knapsack, Solution, solve_knapsack
from sparseplan.planner.spend_ablations import ablation_schedule, spend_ablations
from sparseplan.planner.stored_bytes import weight_file_bytes

MakeContext = Callable[..., PlanContext]
BUDGET_S = 2.2
EXAMPLE = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def plan_for(model: nn.Module, context: PlanContext, target: Target, **changes: Any) -> Plan:
    values: dict[str, Any] = {"model_spec": "test:net", "example": EXAMPLE, "patterns": ("unstructured", "filter")}
    return make_plan(model, PlanRequest(target=target, **{**values, **changes}), context=context)


def test_throughput_is_latency_of_a_batch(small_net: nn.Module, make_context: MakeContext) -> None:
    context = make_context()
    dense_s = plan_for(small_net, context, Target(speedup=1.5)).totals.dense_time_s.median
    by_latency = plan_for(small_net, context, Target(latency_s=dense_s / 2))
    by_throughput = plan_for(small_net, context, Target(throughput_per_s=4 / (dense_s / 2)))
    assert by_throughput.layers == by_latency.layers
    assert by_throughput.solver.status == "optimal"
    impossible = plan_for(small_net, context, Target(throughput_per_s=1e12))
    assert "target throughput 1e+12 a second" in impossible.solver.message


def test_several_targets_are_all_met(small_net: nn.Module, make_context: MakeContext) -> None:
    context = make_context()
    alone = plan_for(small_net, context, Target(speedup=1.5))
    dense_s = alone.totals.dense_time_s.median
    assert alone.totals.dense_bytes is not None
    target = Target(speedup=1.5, latency_s=0.6 * dense_s, model_bytes=0.5 * alone.totals.dense_bytes)
    both = plan_for(small_net, context, target)
    assert both.solver.status == "optimal"
    assert both.totals.planned_time_s.high <= 0.6 * dense_s * (1 + 1e-5)
    assert both.totals.planned_bytes is not None
    assert both.totals.planned_bytes <= 0.5 * alone.totals.dense_bytes
    assert both.totals.loss_increase >= alone.totals.loss_increase
    assert " MB" in both.solver.message


def test_size_alone_is_never_slower_than_dense(small_net: nn.Module, make_context: MakeContext) -> None:
    context = make_context()
    dense_bytes = plan_for(small_net, context, Target(speedup=1.0)).totals.dense_bytes
    assert dense_bytes is not None
    assert dense_bytes == sum(4 * p.numel() for p in small_net.parameters()) + sum(
        b.numel() * b.element_size() for b in small_net.buffers()
    )
    plan = plan_for(small_net, context, Target(model_bytes=0.6 * dense_bytes))
    assert plan.solver.status == "optimal"
    assert plan.totals.planned_bytes is not None
    assert plan.totals.planned_bytes <= 0.6 * dense_bytes
    assert plan.totals.planned_time_s.median <= plan.totals.dense_time_s.median
    impossible = plan_for(small_net, context, Target(model_bytes=100.0))
    assert impossible.solver.status == "infeasible"
    assert "target size 0.0001 MB cannot be met" in impossible.solver.message


def test_file_bytes_are_kept_weights_and_a_bit_a_group() -> None:
    layer = Problem(op="conv2d", n=1, c_in=32, c_out=64, h_in=8, w_in=8, kernel=(3, 3))
    assert weight_file_bytes(layer) == 64 * 32 * 9 * 4
    assert weight_file_bytes(layer.with_sparsity("unstructured", 0.75)) == 64 * 32 * 9 * (1 + 1 / 8)
    assert weight_file_bytes(layer.with_sparsity("block:16x1", 0.75)) == 64 * 32 * 9 * (1 + 1 / 128)
    assert weight_file_bytes(layer.with_sparsity("filter", 0.5)) == 64 * 32 * 9 * 2 + 8


def test_size_limit_against_brute_force() -> None:
    generator = np.random.default_rng(0)
    for _ in range(8):
        layers, each = 4, 3
        knapsack = Knapsack(
            layer=np.repeat(np.arange(layers), each),
            source=np.zeros(layers * each, dtype=np.intp),
            median_s=generator.random(layers * each),
            spread_s=np.zeros(layers * each),
            loss=generator.random(layers * each),
            fixed_s=0.0,
            base_spread_s=np.zeros(1),
        )
        size = generator.random(layers * each)
        limit = 2.0

        def solve(loss: Any, knapsack: Knapsack = knapsack) -> Solution:
            return solve_knapsack(replace(knapsack, loss=loss), budget_s=BUDGET_S)

        found = solve_within_bytes(knapsack.loss, size, solve, limit=limit)
        every = (
            np.array(np.meshgrid(*[np.arange(each) + each * layer for layer in range(layers)])).reshape(layers, -1).T
        )
        fits = (knapsack.median_s[every].sum(axis=1) <= BUDGET_S) & (size[every].sum(axis=1) <= limit)
        if found.chosen is None:
            continue
        chosen = list(found.chosen)
        assert size[chosen].sum() <= limit
        assert knapsack.median_s[chosen].sum() <= BUDGET_S * (1 + 1e-5)
        best = knapsack.loss[every[fits]].sum(axis=1).min()
        assert found.bound is not None
        assert found.bound <= best * (1 + 1e-4) + 1e-9
        assert best <= knapsack.loss[chosen].sum() * (1 + 1e-9)
        assert found.objective == pytest.approx(knapsack.loss[chosen].sum())


def test_below_the_floor_says_so(small_net: nn.Module, make_context: MakeContext) -> None:
    plan = plan_for(small_net, make_context(), Target(latency_s=1e-9))
    assert "below the floor of" in plan.solver.message
    assert "zeros cannot" in plan.solver.message


def test_the_front_falls_and_joins_the_plan(small_net: nn.Module, make_context: MakeContext) -> None:
    context = make_context({"conv2d_unstructured_fake": 0.5})
    plan = plan_for(small_net, context, Target(speedup=2.0), sweep_points=6)
    front = plan.front
    assert 3 <= len(front) <= 6
    assert front[0].layers == ()
    assert front[0].loss_increase == 0.0
    assert [point.loss_increase for point in front] == sorted(point.loss_increase for point in front)
    assert [point.time_s.median for point in front] == sorted((point.time_s.median for point in front), reverse=True)
    assert front[-1].speedup == pytest.approx(plan.totals.best_reachable_speedup, rel=1e-2)
    for slower, faster in pairwise(front):
        if slower.speedup < 2.0 < faster.speedup:
            assert slower.loss_increase <= plan.totals.loss_increase * (1 + 1e-3)
            assert plan.totals.loss_increase <= faster.loss_increase * (1 + 1e-3)
    with pytest.raises(InputError, match="sweep of 1 points; allowed are 2 or more"):
        plan_for(small_net, context, Target(speedup=2.0), sweep_points=1)


def test_accuracy_together_with_speed(
    trained_net: nn.Module, digits: tuple[Tensor, Tensor], make_context: MakeContext
) -> None:
    calibration = Calibration(images=digits[0][1500:], labels=digits[1][1500:])
    options: dict[str, Any] = {"calibration": calibration, "sensitivity_budget_s": 1.0}
    kind = plan_for(trained_net, make_context(), Target(speedup=1.1, max_accuracy_drop_points=50.0), **options)
    assert kind.solver.status == "optimal"
    assert "allowed are 50" in kind.solver.message
    strict = plan_for(trained_net, make_context(), Target(speedup=8.0, max_accuracy_drop_points=0.0), **options)
    assert strict.solver.status == "infeasible"
    assert "cannot be met together" in strict.solver.message


def test_planning_again_measures_nothing(
    trained_net: nn.Module,
    digits: tuple[Tensor, Tensor],
    make_context: MakeContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {
        "calibration": Calibration(images=digits[0][1500:1700], labels=digits[1][1500:1700]),
        "sensitivity_budget_s": 1.0,
        "search_budget_s": 1.0,
        "pruned_layers": tmp_path / "db",
    }
    before = {name: value.clone() for name, value in trained_net.state_dict().items()}
    first = plan_for(trained_net, make_context(), Target(speedup=2.0), **options)
    assert all(torch.equal(before[name], value) for name, value in trained_net.state_dict().items())
    assert first.pruned_layers_path == str(tmp_path / "db")
    for module, name in ((expected_loss, "estimate_sensitivity"), (expected_loss, "search_stitched")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("measured again"))
    monkeypatch.setattr("sparseplan.planner.pruned_layers.remove_weights", lambda *_: pytest.fail("pruned again"))
    assert plan_for(trained_net, make_context(), Target(speedup=2.0), **options).layers == first.layers
    faster = plan_for(trained_net, make_context(), Target(speedup=3.0), sweep_points=4, **options)
    assert faster.totals.loss_increase > first.totals.loss_increase
    assert len(faster.front) > 1
    # Another machine asks about other choices, all of which are there as well.
    other = plan_for(trained_net, make_context({"conv2d_unstructured_fake": 0.8}), Target(speedup=2.0), **options)
    assert other.solver.status == "optimal"


def test_a_database_needs_data(small_net: nn.Module, make_context: MakeContext, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="made from calibration data"):
        plan_for(small_net, make_context(), Target(speedup=2.0), pruned_layers=tmp_path)


def test_the_search_finds_hidden_factors() -> None:
    """Layers whose true losses are off by known factors; the solver takes the two cheapest of six."""
    names = [f"layer{number}" for number in range(6)]
    truth = dict(zip(names, (5.0, 0.1, 1.0, 3.0, 0.2, 1.0), strict=True))

    def solve(scale: Mapping[str, float]) -> list[Stitching]:
        cheapest = sorted(names, key=lambda name: scale[name])[:2]
        choices = tuple(WeightChoice(layer=name, pattern="filter", sparsity=0.5) for name in sorted(cheapest))
        return [Stitching(choices=choices, kept=())]

    def loss(plan: Stitching) -> float:
        return sum(truth[choice.layer] for choice in plan.choices)

    found = search_scales(names, solve=solve, stitched_loss=loss, budget_s=0.3)
    assert found is not None
    assert found.first_loss == (5.1,)
    assert found.loss == (pytest.approx(0.3),)
    assert solve(found.scale) == solve(truth)
    assert found.evaluated <= 15
    nothing = search_scales(names, solve=lambda scale: None, stitched_loss=loss, budget_s=0.1)
    assert nothing is None
    at_once = search_scales(names, solve=solve, stitched_loss=loss, budget_s=0.0)
    assert at_once is not None
    assert at_once.loss == at_once.first_loss


class CountedAblation:
    def __init__(self) -> None:
        self.asked: list[WeightChoice] = []

    def measure(self, choice: WeightChoice) -> Rise:
        self.asked.append(choice)
        return Rise(loss=1.0, error=0.1)


def test_ablations_go_where_the_plan_is() -> None:
    choices = [
        WeightChoice(layer=layer, pattern=pattern, sparsity=sparsity)
        for layer in "abc"
        for pattern in ("filter", "shape")
        for sparsity in (0.25, 0.5, 0.75)
    ]
    schedule = list(ablation_schedule(choices))
    decisive = [choice for choice in choices if choice not in schedule][:2]
    ablation: Any = CountedAblation()
    measured = spend_ablations(ablation, choices, focus=lambda found: decisive, budget_s=60.0, progress=lambda *_: None)
    assert ablation.asked[:3] == schedule[:3]
    assert ablation.asked[3:5] == decisive
    assert set(ablation.asked[5:]) == set(schedule[3:])
    assert set(measured) == {*schedule, *decisive}
    late: Any = CountedAblation()
    assert spend_ablations(late, choices, focus=None, budget_s=0.0, progress=lambda *_: None) == {}


def test_measured_losses_are_believed_as_far_as_they_are_sure() -> None:
    curve = [WeightChoice(layer="a", pattern="filter", sparsity=sparsity) for sparsity in (0.25, 0.5, 0.75)]
    loss = dict(zip(curve, (0.1, 0.2, 0.4), strict=True))
    sure = sensitivity._monotone(loss, {curve[1]: Rise(loss=0.05, error=0.0005)})
    assert sure[curve[0]] == pytest.approx(0.05, rel=0.02)
    assert sure[curve[1]] == pytest.approx(0.05, rel=0.02)
    assert sure[curve[2]] == pytest.approx(0.4)
    unsure = sensitivity._monotone(loss, {curve[1]: Rise(loss=0.05, error=0.5)})
    assert unsure[curve[1]] == pytest.approx(0.2, rel=0.1)
