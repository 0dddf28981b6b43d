"""What a plan says of itself."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.planner.explain import explain
from sparseplan.planner.make_plan import make_plan
from sparseplan.planner.reasons import faster_kernel, why_lost
from sparseplan.planner.request import PlanContext, PlanRequest
from sparseplan.planner.schema import (
    Candidate,
    ChannelSlice,
    Plan,
    SkippedLayer,
    Target,
    WidthGroup,
    WidthLevel,
    WidthPlan,
)


@pytest.fixture
def plan(small_net: nn.Module, make_context: Callable[..., PlanContext]) -> Plan:
    request = PlanRequest(
        model_spec="test:net",
        example=torch.randn(4, 1, 8, 8),
        target=Target(speedup=2.0),
        patterns=("unstructured",),
    )
    efficiency = {"conv2d_unstructured_fake": 0.5, "linear_unstructured_fake": 1e-3}
    made = make_plan(small_net, request, context=make_context(efficiency))
    skipped = (SkippedLayer(name="up", kind="ConvTranspose2d", reason="no sparse kernel"),)
    return made.model_copy(update={"skipped": skipped})


def test_the_whole_plan(plan: Plan) -> None:
    text = explain(plan)
    for layer in plan.layers:
        (line,) = [line for line in text.splitlines() if line.startswith(layer.name + " ")]
        assert layer.chosen.kernel in line
        assert layer.chosen.pattern in line
    assert "Target: 2x faster than the best dense network" in text
    assert "Solver: optimal" in text
    assert f"Best reachable   {plan.totals.best_reachable_speedup:.2f}x" in text
    assert "no calibration data" in text
    assert "up (ConvTranspose2d): no sparse kernel" in text


def test_a_sparse_layer(plan: Plan) -> None:
    layer = next(layer for layer in plan.layers if layer.chosen.pattern != "dense")
    text = explain(plan, layer.name)
    assert layer.reason in text
    assert "faster than dense, loss +" in text
    assert f"Dense    {layer.dense.kernel}" in text
    assert "why it lost" in text
    assert "a lower target" in text
    for way, sparsity in layer.break_even_sparsity.items():
        assert f"  {way}: beats dense from" in text
        assert sparsity is not None
    # The pattern that was allowed has a range, whichever was chosen.
    assert {way.split(" on ")[0] for way in layer.break_even_sparsity} == {"unstructured"}
    assert "beats dense from 5" in text  # at half the dense rate, half the weights must go


def test_a_dense_layer(plan: Plan) -> None:
    head = plan.layers[-1]
    assert head.chosen == head.dense
    text = explain(plan, "head")
    assert "left dense: no kernel beats" in text
    assert "linear_unstructured_fake: loses to dense at every sparsity" in text
    assert "only another machine" in text


def test_predictions_outside_the_measured_range_are_marked(plan: Plan) -> None:
    assert "*" not in explain(plan)
    head = plan.layers[-1]
    outside = head.dense.model_copy(update={"extrapolated": True})
    layers = (*plan.layers[:-1], head.model_copy(update={"dense": outside, "chosen": outside}))
    marked = plan.model_copy(update={"layers": layers})
    text = explain(marked)
    (line,) = [line for line in text.splitlines() if line.startswith("head ")]
    assert line.count(" ms*") == 2
    assert "* outside the measured range" in text
    assert explain(marked, "head").count("; outside the measured range") == 2


def test_a_skipped_layer(plan: Plan) -> None:
    assert explain(plan, "up") == "up (ConvTranspose2d) was not planned: no sparse kernel\n"


def test_an_unknown_layer_names_close_ones(plan: Plan) -> None:
    with pytest.raises(InputError, match="no layer 'widee'; close names: wide"):
        explain(plan, "widee")


def candidate(plan: Plan, *, time_s: float, high_s: float, loss: float) -> Candidate:
    sparse = next(layer.chosen for layer in plan.layers if layer.chosen.pattern != "dense")
    interval = sparse.time_s.model_copy(update={"median": time_s, "low": time_s, "high": high_s})
    return sparse.model_copy(update={"time_s": interval, "loss_increase": loss})


@pytest.mark.parametrize(
    ("time_s", "high_s", "loss", "words"),
    [
        (2.0, 2.1, 0.1, "2.00x slower than dense"),
        (0.9, 1.1, 0.1, "not surely faster: at worst 1.1e+03 ms"),
        (0.6, 0.7, 0.5, "the choice has no more loss and takes no longer"),
        (0.8, 0.9, 0.1, "less loss, but at worst 1.50x the time"),
        (0.55, 0.58, 0.5, "faster at worst, but 0.3 more loss"),
        (0.25, 0.3, 0.5, "faster, but 0.3 more loss"),
    ],
)
def test_why_a_candidate_lost(plan: Plan, time_s: float, high_s: float, loss: float, words: str) -> None:
    chosen = candidate(plan, time_s=0.5, high_s=0.6, loss=0.2)
    dense = candidate(plan, time_s=1.0, high_s=1.0, loss=0.0)
    assert words in why_lost(candidate(plan, time_s=time_s, high_s=high_s, loss=loss), chosen, dense)


def test_without_data_it_says_so(plan: Plan) -> None:
    assert "no calibration data: losses are guessed from the size of the weights alone" in explain(plan)
    assert "Model file       " in explain(plan)


def test_the_front_and_what_the_layer_gets_along_it(
    small_net: nn.Module, make_context: Callable[..., PlanContext]
) -> None:
    request = PlanRequest(
        model_spec="test:net",
        example=torch.randn(4, 1, 8, 8),
        target=Target(speedup=2.0, latency_s=10.0, throughput_per_s=1.0, model_bytes=1e9),
        patterns=("unstructured",),
        sweep_points=5,
    )
    plan = make_plan(small_net, request, context=make_context({"conv2d_unstructured_fake": 0.5}))
    text = explain(plan)
    assert (
        "Target: 2x faster than the best dense network, and at most 1e+04 ms a batch, and at least 1 images a second, "
        "and at most 1000 MB as a file" in text
    )
    assert "Least loss against time:" in text
    assert f"  {plan.front[1].speedup:.2f}x" in text
    layer = explain(plan, "wide")
    assert "At other targets: dense from 1.00x, unstructured " in layer


def test_the_kernel_that_would_change_it(plan: Plan) -> None:
    chosen = candidate(plan, time_s=0.5, high_s=0.6, loss=0.2)
    dense = chosen.model_copy(update={"pattern": "dense", "loss_increase": 0.0, "sparsity": 0.0})
    slower = candidate(plan, time_s=0.8, high_s=0.9, loss=0.1)
    worse = candidate(plan, time_s=0.3, high_s=0.4, loss=0.5)
    text = faster_kernel([slower, worse], chosen)
    assert text is not None
    assert text.startswith(f"{slower.kernel} would have to be 1.50x faster, at worst")
    assert faster_kernel([worse], chosen) is None
    left = faster_kernel([slower], dense)
    assert left is not None
    assert "1.80x faster, at worst" in left


def test_a_narrowed_layer_names_the_next_widths(plan: Plan) -> None:
    layer = plan.layers[0]
    part = ChannelSlice(module=layer.name, axis="out", offsets=(0,), run=1)
    width = WidthPlan(
        group=WidthGroup(name="stem", units=16, slices=(part,)),
        kept=8,
        loss_increase=0.2,
        considered=tuple(WidthLevel(kept=kept, loss_increase=0.8 - 0.05 * kept) for kept in (4, 8, 12, 16)),
        reason="",
    )
    narrow = layer.model_copy(update={"problem": replace(layer.problem.as_dense(), c_out=8)})
    text = explain(plan.model_copy(update={"layers": (narrow, *plan.layers[1:]), "widths": (width,)}), layer.name)
    (line,) = [line for line in text.splitlines() if line.startswith("What would change this")]
    assert "a lower target: 12 in place of 8 of 16 units of stem, loss +0.2 in place of +0.2" in line
    assert "a higher target: 4 in place of 8 of 16 units of stem, loss +0.6 in place of +0.2" in line
    assert "--sweep" in line
