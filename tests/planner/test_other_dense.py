"""Layers that stay dense on a faster kernel than torch's own choice."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from sparseplan.kernels.dense import MKL_OPS, run_linear_onednn
from sparseplan.kernels.spec import Machine
from sparseplan.planner.explain import explain
from sparseplan.planner.make_plan import make_plan
from sparseplan.planner.request import PlanContext, PlanRequest
from sparseplan.planner.schema import Plan, Target
from sparseplan.runtime.compile import is_swapped
from sparseplan.trainer.assignment import assignment_of

OTHER = "linear_dense_other"
SIZE = 256


@pytest.fixture
def context(make_context: Callable[..., PlanContext]) -> PlanContext:
    """A machine whose torch calls MKL for linears, where oneDNN is three times as fast."""
    made = make_context({OTHER: 3.0})
    (plain,) = (kernel for kernel in made.registry if kernel.name == "linear_dense_fake")
    return replace(
        made,
        machine=Machine(isa=("baseline",), torch_ops=MKL_OPS),
        registry=(*made.registry, replace(plain, name=OTHER, run=run_linear_onednn)),
    )


def plan(context: PlanContext, **changes: Any) -> Plan:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, SIZE))
    values: dict[str, Any] = {
        "model_spec": "test:net",
        "example": torch.randn(4, SIZE),
        "target": Target(speedup=2.0),
        "patterns": ("unstructured",),
        **changes,
    }
    return make_plan(model, PlanRequest(**values), context=context)


def test_a_target_is_met_without_any_loss(context: PlanContext) -> None:
    found = plan(context)
    assert found.solver.status == "optimal"
    assert found.totals.loss_increase == 0.0
    dense_s = 2.0 * SIZE * SIZE * 4 / 1e9
    for layer in found.layers:
        assert (layer.chosen.pattern, layer.chosen.kernel, layer.dense.kernel) == ("dense", OTHER, "linear_dense_fake")
        assert layer.dense.time_s.median == pytest.approx(dense_s)
        assert layer.chosen.time_s.median == pytest.approx(dense_s / 3.0, rel=0.01)
        assert is_swapped(layer)
        assert "nothing removed; torch would run linear_dense_fake" in layer.reason
    assert assignment_of(found) == ()
    assert "dense, other kernel" in explain(found)
    assert "dense, other kernel on linear_dense_other" in explain(found, "0")


def test_what_costs_nothing_is_taken_beyond_the_target(context: PlanContext) -> None:
    found = plan(context, target=Target(speedup=1.3))
    assert all(layer.chosen.other_dense for layer in found.layers)


def test_zeros_come_on_top_where_the_target_needs_them(context: PlanContext) -> None:
    found = plan(context, target=Target(speedup=4.0))
    assert found.solver.status == "optimal"
    pruned = [layer for layer in found.layers if layer.chosen.pattern != "dense"]
    assert pruned
    assert found.totals.loss_increase > 0.0


def test_where_torch_has_no_mkl_it_is_the_dense_network_itself(context: PlanContext) -> None:
    found = plan(replace(context, machine=Machine(isa=("baseline",))))
    for layer in found.layers:
        assert layer.dense.kernel == OTHER
        assert layer.chosen == layer.dense or layer.chosen.pattern == "unstructured"
        assert not layer.chosen.other_dense


def test_one_that_may_be_slower_is_not_taken(context: PlanContext, make_context: Callable[..., PlanContext]) -> None:
    unsure = make_context({OTHER: 1.1}, 0.2)
    found = plan(replace(context, performance_model=unsure.performance_model))
    assert not any(layer.chosen.other_dense for layer in found.layers)
