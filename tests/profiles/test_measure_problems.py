"""Measuring problems: checked first, timed after, and a reason where there is no time."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.documents import read_records, write_records
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import error_limit
from sparseplan.kernels.registry import REGISTRY, kernel_named
from sparseplan.kernels.select import eligible
from sparseplan.kernels.spec import KernelSpec
from sparseplan.profiles import measure_problems as module
from sparseplan.profiles.measure_problems import measure_problem, measure_problems
from sparseplan.profiles.measure_schema import MeasureRecord

CONV = Problem(op="conv2d", n=2, c_in=16, c_out=16, h_in=6, w_in=6, kernel=(3, 3), padding=(1, 1))
LINEAR = Problem(op="linear", n=4, c_in=32, c_out=32)


@pytest.fixture(autouse=True)
def _short_budget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "BUDGET_S", 0.01)
    before = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == before


def _measure(*problems: Problem, **options: Any) -> list[MeasureRecord]:
    defaults = {"machine": detect_machine(), "registry": REGISTRY}
    return list(measure_problems(problems, **(defaults | options)))


def _timed(record: MeasureRecord) -> None:
    assert record.reason is None
    assert record.time_s is not None
    assert record.time_s.low <= record.time_s.median <= record.time_s.high
    assert record.rel_error is not None
    assert record.rel_error <= error_limit(record.problem)
    assert record.max_abs_error is not None


def test_auto_gives_one_record_a_problem() -> None:
    problems = (CONV, LINEAR.with_sparsity("unstructured", 0.9), replace(LINEAR, dtype="bfloat16"))
    records = _measure(*problems)
    assert [record.problem for record in records] == list(problems)
    for record in records:
        _timed(record)
    assert records[1].flop_dense_equiv == LINEAR.flop_dense_equiv
    assert records[1].flop_useful == pytest.approx(0.1 * LINEAR.flop_dense_equiv, rel=0.02)


def test_all_gives_one_record_an_eligible_kernel() -> None:
    problem = CONV.with_sparsity("filter+shape", 0.75)
    records = _measure(problem, kernel="all")
    assert [record.kernel for record in records] == [
        kernel.name for kernel in eligible(problem, detect_machine(), REGISTRY)
    ]
    for record in records:
        _timed(record)


def test_a_name_gives_that_kernel_or_the_reason() -> None:
    first, second = _measure(CONV, LINEAR, kernel="conv2d_dense_f32_nchw__torch")
    _timed(first)
    assert second.kernel == "conv2d_dense_f32_nchw__torch"
    assert second.time_s is None
    assert second.reason == "runs conv2d, the problem is linear"
    with pytest.raises(InputError, match="no kernel is named 'conv2d'"):
        _measure(CONV, kernel="conv2d")


def test_a_problem_that_cannot_be_run_yields_its_reason() -> None:
    (record,) = _measure(CONV.with_sparsity("sas:2:4", 0.5))
    assert record.kernel is None
    assert record.time_s is None
    assert "activations" in str(record.reason)
    (record,) = _measure(replace(CONV, threads=10_000))
    assert "10000 threads" in str(record.reason)


def test_threads_override() -> None:
    (record,) = _measure(replace(CONV, threads=10_000), threads=1)
    assert record.problem.threads == 1
    _timed(record)


def test_a_wrong_kernel_is_not_timed() -> None:
    right = kernel_named("linear_dense_f32_nchw__torch")

    def _off(packed: Any, x: torch.Tensor) -> torch.Tensor:
        return right.run(packed, x) * 1.01

    def _lost(packed: Any, x: torch.Tensor) -> torch.Tensor:
        return right.run(packed, x) * float("nan")

    for run, error_known in ((_off, True), (_lost, False)):
        broken: KernelSpec = replace(right, run=run)
        record = measure_problem(
            LINEAR,
            broken,
            machine=detect_machine(),
            folder=None,
            generator=torch.Generator().manual_seed(0),
            budget_s=0.01,
        )
        assert record.time_s is None
        assert "wrong result" in str(record.reason)
        assert (record.rel_error is not None) == error_known


def test_records_survive_the_file(tmp_path: Path) -> None:
    records = _measure(CONV, CONV.with_sparsity("sas:2:4", 0.5))
    write_records(tmp_path / "m.jsonl", records)
    assert read_records(tmp_path / "m.jsonl", MeasureRecord, kind="measurement") == tuple(records)


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[str, float, float]] = []
    _measure(CONV, LINEAR, progress=lambda stage, done, total: seen.append((stage, done, total)))
    assert seen == [("measure", 0, 2), ("measure", 1, 2), ("measure", 2, 2)]


@pytest.mark.parametrize(("name", "sparsity"), [("conv4_1", 0.964), ("conv5_2", 0.827)])
def test_pruned_alexnet(shared_data: Path, name: str, sparsity: float) -> None:
    problems = Path(__file__).parents[2] / "benchmarks" / "problems" / "alexnet_pruned.jsonl"
    (problem,) = [
        replace(problem, n=2, weights=str(shared_data / "alexnet_pruned" / f"{name}.mtx.gz"), sparsity=0.0)
        for problem in read_records(problems, Problem, kind="problem")
        if f"/{name}.mtx" in str(problem.weights)
    ]
    records = _measure(problem, kernel="all")
    assert any("unstructured" in str(record.kernel) for record in records)
    for record in records:
        _timed(record)
        assert record.problem.sparsity == pytest.approx(sparsity, abs=1e-3)
        assert record.flop_useful == pytest.approx((1 - record.problem.sparsity) * record.flop_dense_equiv)
