"""The time of what lies between the layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from sparseplan.kernels.problem import Dtype, Problem
from sparseplan.kernels.registry import kernel_named
from sparseplan.kernels.spec import Machine
from sparseplan.perfmodel.network import NetworkTerms
from sparseplan.perfmodel.predict import Prediction
from sparseplan.planner.capture import Captured, CapturedLayer
from sparseplan.planner.options import Machinery
from sparseplan.planner.rest import rest_time
from sparseplan.planner.rest_operations import RestOperation

DENSE = tuple(kernel_named(f"linear_dense_{dtype}_nchw__torch") for dtype in ("f32", "bf16"))


class FourTimes:
    """Products in bfloat16 take a quarter of the time."""

    threads = 1
    network = NetworkTerms(call_s=0.0, layer_s=0.0, kind_s=1e-2, refetch_frac=1.0, handover_frac=1.0, between_scale=1.0)

    def predict(self, problem: Problem, kernel: str) -> Prediction:
        time_s = problem.flop_dense_equiv / (4e9 if "bf16" in kernel else 1e9)
        return Prediction(median_s=time_s, low_s=time_s, high_s=time_s, bound="arithmetic", extrapolated=False)


def _machinery(isa: tuple[str, ...]) -> Machinery:
    return Machinery(
        performance_model=cast(Any, FourTimes()),
        machine=Machine(isa=isa),
        registry=DENSE,
        call_overhead_s=0.0,
    )


def _captured(layers: tuple[CapturedLayer, ...] = (), rest: tuple[RestOperation, ...] = ()) -> Captured:
    return Captured(layers=layers, skipped=(), rest=rest, method="export", fallback=None)


def _seconds(operation: str, dtype: Dtype, isa: tuple[str, ...]) -> float:
    product = Problem(op="linear", n=64, c_in=32, c_out=64)
    rest = (RestOperation(operation=operation, bytes_moved=1e4, products=(product,)),)
    return rest_time(_captured(rest=rest), dtype, _machinery(isa)).full_s.median


@pytest.mark.parametrize(
    ("operation", "isa", "faster"),
    [
        ("bmm", ("baseline",), 4.0),
        ("scaleddotproductattention", ("baseline",), 1.0),
        ("scaleddotproductattention", ("baseline", "amx"), 4.0),
    ],
)
def test_attention_gains_by_half_precision_only_with_tiles(operation: str, isa: tuple[str, ...], faster: float) -> None:
    assert _seconds(operation, "float32", isa) == pytest.approx(faster * _seconds(operation, "bfloat16", isa))


def test_layers_of_one_shape_share_the_cost_of_their_kind() -> None:
    thin, wide = (
        CapturedLayer(name=str(width), kind="linear", problem=Problem(op="linear", n=1, c_in=width, c_out=8), calls=1)
        for width in (16, 32)
    )
    one, both = (
        rest_time(_captured(layers=layers), "float32", _machinery(("baseline",))).full_s.median
        for layers in ((thin, replace(thin, name="again")), (thin, wide))
    )
    assert (one, both) == pytest.approx((1e-2, 2e-2))
