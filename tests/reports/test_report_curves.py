"""Speedup curves ask the model the right questions, and break even where the model says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from report_samples import (
    DENSE_KERNEL,
    UNSTRUCTURED_KERNEL,
    FakeModel,
    conv,
    layer_plan,
    prediction,
    sample_plan,
    sample_profile,
)

from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.predict import Prediction
from sparseplan.planner.schema import LayerPlan, Plan
from sparseplan.reports.curves import speedup_curves


@dataclass(frozen=True)
class LinearModel:
    """Dense takes 1 ms; sparse work takes 4 ms times the share of weights that are left, 4 ms at least 0.1 %."""

    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def predict_many(self, problems: Sequence[Problem], kernel: str) -> tuple[Prediction, ...]:
        self.asked.extend((kernel, problem.pattern, problem.dtype) for problem in problems)
        return tuple(
            prediction(1e-3 if problem.pattern == "dense" else 4e-3 * (1 - problem.sparsity)) for problem in problems
        )


def plan_of(*layers: LayerPlan) -> Plan:
    return sample_plan().model_copy(update={"layers": layers})


def test_break_even_is_where_three_quarters_are_zero() -> None:
    curve = speedup_curves(plan_of(layer_plan("a", conv(1, 64, 64, 16), "unstructured", 0.9)), LinearModel())[0]
    assert curve.break_even == pytest.approx(0.75, abs=0.015)
    assert (curve.layer, curve.kernel, curve.pattern) == ("a", UNSTRUCTURED_KERNEL, "unstructured")
    assert curve.sparsity[0] == 0.0
    assert list(curve.sparsity) == sorted(curve.sparsity)
    for sparsity, speedup in zip(curve.sparsity, curve.speedup, strict=True):
        assert speedup == pytest.approx(0.25 / (1 - sparsity))


def test_the_band_of_a_ratio_is_wider_than_that_of_either_time_and_narrower_than_both_together() -> None:
    curve = speedup_curves(plan_of(layer_plan("a", conv(1, 64, 64, 16), "unstructured", 0.9)), LinearModel())[0]
    # both times are known to a factor of 1.12, so their ratio to 1.12 ** sqrt(2)
    assert curve.high[5] / curve.speedup[5] == pytest.approx(1.12 ** (2**0.5))
    assert curve.speedup[5] / curve.low[5] == pytest.approx(1.12 ** (2**0.5))


def test_a_kernel_that_never_wins_has_no_break_even() -> None:
    @dataclass(frozen=True)
    class Hopeless:
        def predict_many(self, problems: Sequence[Problem], kernel: str) -> tuple[Prediction, ...]:
            return tuple(prediction(1e-3 if problem.pattern == "dense" else 2e-3) for problem in problems)

    plan = plan_of(layer_plan("a", conv(1, 64, 64, 16), "unstructured", 0.9))
    assert [curve.break_even for curve in speedup_curves(plan, Hopeless())] == [None, None]


def test_a_pattern_that_dictates_its_sparsity_is_one_point() -> None:
    layer = layer_plan("a", conv(1, 64, 64, 16), "2:4", 0.5)
    curve = speedup_curves(plan_of(layer.model_copy(update={"considered": ()})), LinearModel())[0]
    assert (curve.sparsity, curve.speedup) == ((0.5,), (pytest.approx(0.5),))
    assert curve.break_even is None


def test_each_kernel_is_asked_in_its_own_dtype() -> None:
    layer = layer_plan("a", conv(1, 64, 64, 16), "unstructured", 0.9)
    dense = layer.dense.model_copy(update={"dtype": "bfloat16"})
    model = LinearModel()
    speedup_curves(plan_of(layer.model_copy(update={"dense": dense, "considered": ()})), model)
    assert set(model.asked) == {
        (DENSE_KERNEL, "dense", "bfloat16"),
        (UNSTRUCTURED_KERNEL, "unstructured", "float32"),
        (UNSTRUCTURED_KERNEL, "unstructured", "float32"),
    }


def test_the_heaviest_layers_are_shown_once_each_in_the_order_of_the_plan() -> None:
    sizes = (4, 24, 8, 28, 12, 32, 16, 28)
    layers = [layer_plan(f"l{i}", conv(1, 64, 64, size), "unstructured", 0.9) for i, size in enumerate(sizes)]
    shown = list(dict.fromkeys(curve.layer for curve in speedup_curves(plan_of(*layers), FakeModel())))
    # l7 does the same work as l3, l0 is the lightest of the seven that are left
    assert shown == ["l1", "l2", "l3", "l4", "l5", "l6"]


def test_calls_count_for_the_weight_of_a_layer() -> None:
    layers = [layer_plan(f"l{i}", conv(1, 64, 64, 8 + i), "unstructured", 0.9) for i in range(7)]
    layers[0] = layers[0].model_copy(update={"calls": 50})
    shown = {curve.layer for curve in speedup_curves(plan_of(*layers), FakeModel())}
    assert shown == {"l0", "l2", "l3", "l4", "l5", "l6"}


def test_the_chosen_pattern_comes_first_and_each_pattern_once() -> None:
    layer = layer_plan("a", conv(1, 64, 64, 16), "filter", 0.5)
    assert [curve.pattern for curve in speedup_curves(plan_of(layer), FakeModel())] == ["filter", "unstructured"]


def test_a_layer_for_which_nothing_sparse_was_considered_has_no_curve() -> None:
    linear = replace(conv(1, 64, 64, 1, kernel=1), op="linear")
    assert speedup_curves(plan_of(layer_plan("a", linear, "dense", 0.0)), FakeModel()) == ()


def test_a_fitted_model_gives_curves_for_the_real_kernels() -> None:
    model = fit_performance_model(sample_profile(), REGISTRY)
    curves = speedup_curves(sample_plan(), model)
    assert len({curve.layer for curve in curves}) == 6
    for curve in curves:
        assert len(curve.sparsity) == len(curve.speedup) == len(curve.low) == len(curve.high) > 50
        assert all(0 < low < high for low, high in zip(curve.low, curve.high, strict=True))
        assert curve.speedup[-1] > curve.speedup[0]
