"""Plans as files, and whether they belong to a model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.planner.make_plan import make_plan
from sparseplan.planner.match import check_plan_fits
from sparseplan.planner.request import PlanContext, PlanRequest
from sparseplan.planner.schema import Plan, Target
from sparseplan.planner.store import load_plan, save_plan

GOLDEN = Path(__file__).with_name("golden_plan_v1.json")


@pytest.fixture
def plan(small_net: nn.Module, make_context: Callable[..., PlanContext]) -> Plan:
    request = PlanRequest(model_spec="test:net", example=torch.randn(4, 1, 8, 8), target=Target(speedup=1.5))
    return make_plan(small_net, request, context=make_context())


def test_a_plan_survives_the_file(plan: Plan, tmp_path: Path) -> None:
    save_plan(tmp_path / "plan.json", plan)
    assert load_plan(tmp_path / "plan.json") == plan


def test_the_golden_file_of_version_1_is_read() -> None:
    plan = load_plan(GOLDEN)
    assert plan.schema_version == 3
    assert plan.unusable_patterns == ()
    assert plan.front == ()
    assert plan.totals.planned_bytes is None
    assert plan.widths == ()
    assert plan.layers[1].full_problem == plan.layers[1].problem.as_dense()
    assert plan.model == "test:net"
    assert plan.target.speedup == 1.5
    assert [layer.name for layer in plan.layers] == ["stem", "wide", "grouped", "depthwise", "head"]
    assert plan.layers[1].problem.weight_shape == (32, 16, 3, 3)
    assert plan.solver.status == "optimal"
    # Limits were filed under the kernel; now also under the pattern that they were of.
    old = json.loads(GOLDEN.read_text())["layers"][1]["break_even_sparsity"]
    assert list(plan.layers[1].break_even_sparsity.values()) == list(old.values())
    assert all(
        way.endswith(f" on {kernel}") for way, kernel in zip(plan.layers[1].break_even_sparsity, old, strict=True)
    )


def test_a_plan_of_version_2_is_read(plan: Plan, tmp_path: Path) -> None:
    content = json.loads(plan.model_dump_json(exclude={"unusable_patterns"}))
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**content, "schema_version": 2}))
    assert load_plan(path) == plan.model_copy(update={"unusable_patterns": ()})


def test_a_newer_plan_is_refused(tmp_path: Path) -> None:
    content = json.loads(GOLDEN.read_text())
    content["schema_version"] = 99
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"plan of schema version 99.*upgrade sparseplan"):
        load_plan(path)


def test_a_truncated_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(GOLDEN.read_text()[:500])
    with pytest.raises(InputError, match="is not a plan: not valid JSON"):
        load_plan(path)


def test_a_plan_fits_its_own_model(plan: Plan, small_net: nn.Module) -> None:
    check_plan_fits(plan, small_net)


def test_a_missing_layer_is_named(plan: Plan, small_net: nn.Module) -> None:
    small_net.wide2 = small_net.wide
    del small_net.wide
    with pytest.raises(InputError, match=r"has a layer 'wide', the model has none of that name \(close: wide2"):
        check_plan_fits(plan, small_net)


def test_another_weight_shape_is_named(plan: Plan, small_net: nn.Module) -> None:
    small_net.head = nn.Linear(32, 7)
    with pytest.raises(InputError, match=r"layer 'head' has a weight \[7, 32\], the plan was made for \[10, 32\]"):
        check_plan_fits(plan, small_net)


def test_another_kind_of_layer_is_named(plan: Plan, small_net: nn.Module) -> None:
    small_net.head = nn.Conv2d(32, 10, 1)
    with pytest.raises(InputError, match="layer 'head' is a Conv2d, the plan has a linear there"):
        check_plan_fits(plan, small_net)
