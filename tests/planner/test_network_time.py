"""How certain a whole network is, from how certain its layers are."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn

from sparseplan.planner.make_plan import PlanContext, PlanRequest, make_plan
from sparseplan.planner.schema import Plan, Target

SPREAD_FRAC = 0.4


def plan(sizes: list[int], context: PlanContext, target: float) -> Plan:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(before, after) for before, after in pairwise(sizes)))
    request = PlanRequest(
        model_spec="test:net",
        example=torch.randn(4, sizes[0]),
        target=Target(speedup=target),
        patterns=("unstructured",),
    )
    return make_plan(model, request, context=context)


def spreads(found: Plan) -> list[float]:
    return [layer.dense.time_s.high - layer.dense.time_s.median for layer in found.layers]


def dense_spread(found: Plan) -> float:
    return found.totals.dense_time_s.high - found.totals.dense_time_s.median


def test_errors_of_one_shape_add_up(make_context: Callable[..., PlanContext]) -> None:
    found = plan([128] * 6, make_context(spread_frac=SPREAD_FRAC), 1.2)
    assert dense_spread(found) == pytest.approx(sum(spreads(found)), rel=1e-3)


def test_errors_of_other_shapes_share_what_is_their_kernels(make_context: Callable[..., PlanContext]) -> None:
    found = plan([128, 160, 192, 224, 256], make_context(spread_frac=SPREAD_FRAC), 1.2)
    each = spreads(found)
    expected = math.sqrt(0.3 * sum(each) ** 2 + 0.7 * sum(one**2 for one in each))
    assert dense_spread(found) == pytest.approx(expected, rel=1e-3)


def test_less_is_taken_for_a_target_where_errors_are_independent(make_context: Callable[..., PlanContext]) -> None:
    alike, different = (
        plan(sizes, make_context({"linear_unstructured_fake": 0.9}, 0.3), 2.0)
        for sizes in ([192] * 9, [160, 224, 168, 216, 176, 208, 184, 200, 192])
    )
    for found in (alike, different):
        assert found.solver.status == "optimal"
    needless = [
        found.totals.dense_time_s.median / found.totals.planned_time_s.median / 2.0 for found in (alike, different)
    ]
    assert 1.0 < needless[1] < needless[0]
