"""The core of ``sparseplan predict``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_machine import profile_of

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.select import eligible, select
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.predict import PerformanceModel
from sparseplan.perfmodel.predict_problems import predict_problems

MACHINE = Machine(isa=("baseline",))
DENSE = Problem(op="conv2d", n=2, c_in=8, c_out=8, h_in=8, w_in=8, kernel=(3, 3), padding=(1, 1))
IMPOSSIBLE = replace(DENSE, pattern="sas:2:4", sparsity=0.5)


@pytest.fixture(scope="module")
def model() -> PerformanceModel:
    return fit_performance_model(profile_of(()), REGISTRY)


def test_auto_predicts_what_select_picks(model: PerformanceModel) -> None:
    (record,) = predict_problems((DENSE,), kernel="auto", model=model, machine=MACHINE, registry=REGISTRY)
    picked = select(DENSE, MACHINE, REGISTRY)
    assert isinstance(picked, KernelSpec)
    assert record.kernel == picked.name
    assert record.time_s == model.predict(DENSE, picked.name).interval
    assert record.flop_dense_equiv == DENSE.flop_dense_equiv
    assert record.reason is None


def test_all_predicts_every_eligible_kernel_in_the_order_of_the_problems(model: PerformanceModel) -> None:
    linear = Problem(op="linear", n=2, c_in=64, c_out=10)
    records = predict_problems((DENSE, linear), kernel="all", model=model, machine=MACHINE, registry=REGISTRY)
    expected = [
        (problem, kernel.name) for problem in (DENSE, linear) for kernel in eligible(problem, MACHINE, REGISTRY)
    ]
    assert [(record.problem, record.kernel) for record in records] == expected


@pytest.mark.parametrize("kernel", ["auto", "all"])
def test_what_no_kernel_runs_has_one_record_with_the_reason(model: PerformanceModel, kernel: str) -> None:
    first, second = predict_problems(
        (IMPOSSIBLE, DENSE), kernel=kernel, model=model, machine=MACHINE, registry=REGISTRY
    )[:2]
    assert first.problem == IMPOSSIBLE
    assert first.time_s is None
    assert first.kernel is None
    assert first.reason is not None
    assert "sas:2:4" in first.reason
    assert second.time_s is not None


def test_a_named_kernel_says_why_it_cannot(model: PerformanceModel) -> None:
    name = "linear_dense_f32_nchw__torch"
    (record,) = predict_problems((DENSE,), kernel=name, model=model, machine=MACHINE, registry=REGISTRY)
    assert record.kernel == name
    assert record.time_s is None
    assert record.reason is not None
    assert "linear" in record.reason


def test_an_unknown_kernel_is_an_error(model: PerformanceModel) -> None:
    with pytest.raises(InputError, match="conv2d_dense_f32"):
        predict_problems((DENSE,), kernel="conv2d_dense_f33", model=model, machine=MACHINE, registry=REGISTRY)


def test_real_weights_give_the_real_sparsity(model: PerformanceModel, tmp_path: Path) -> None:
    weight = np.zeros((8, 72), dtype=np.float32)
    weight[:, :9] = 1.0
    np.save(tmp_path / "w.npy", weight)
    problem = replace(DENSE, pattern="filter+shape", sparsity=0.5, weights="w.npy")
    (record,) = predict_problems(
        (problem,), kernel="auto", model=model, machine=MACHINE, registry=REGISTRY, folder=tmp_path
    )
    assert record.problem.sparsity == pytest.approx(0.875)
    assert record.flop_useful == pytest.approx(DENSE.flop_dense_equiv / 8)
    with pytest.raises(InputError, match=r"absent\.npy"):
        predict_problems(
            (replace(problem, weights="absent.npy"),),
            kernel="auto",
            model=model,
            machine=MACHINE,
            registry=REGISTRY,
            folder=tmp_path,
        )
