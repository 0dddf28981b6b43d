"""Plans that nobody made: for tests of what is done with plans."""

from __future__ import annotations

from datetime import UTC, datetime

from sparseplan.kernels.pattern import DENSE
from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.schema import Candidate, LayerPlan, Plan, SolverReport, Target, Totals

TIME = Interval(median=1e-4, low=9e-5, high=1.1e-4)


def _candidate(pattern: str, sparsity: float, kernel: str) -> Candidate:
    return Candidate(
        pattern=pattern,
        sparsity=sparsity,
        kernel=kernel,
        dtype="float32",
        time_s=TIME,
        loss_increase=0.0,
        extrapolated=False,
    )


def layer_plan(name: str, problem: Problem, *, kernel: str, dense_kernel: str) -> LayerPlan:
    """A layer under the problem's own pattern and sparsity."""
    return LayerPlan(
        name=name,
        full_problem=problem.as_dense(),
        problem=problem,
        chosen=_candidate(problem.pattern, problem.sparsity, kernel),
        dense=_candidate(DENSE.text, 0.0, dense_kernel),
        considered=(),
        break_even_sparsity={},
        useful_sparsity={},
        calls=1,
        binding_resource="arithmetic",
        reason="for the test",
    )


def plan_with(*layers: LayerPlan, input_shape: tuple[int, ...], pattern: str, machine: str = "test") -> Plan:
    """These layers, for 1.5 times the speed."""
    return Plan(
        created=datetime(2030, 1, 1, tzinfo=UTC),
        model="test",
        input_shape=input_shape,
        threads=1,
        dtype_policy="float32",
        patterns=(pattern,),
        target=Target(speedup=1.5),
        layers=layers,
        skipped=(),
        totals=Totals(
            dense_time_s=TIME, planned_time_s=TIME, rest_time_s=TIME, loss_increase=0.0, best_reachable_speedup=2.0
        ),
        solver=SolverReport(status="optimal", message="", objective=0.0, bound=0.0, gap_frac=0.0, time_s=0.0),
        sensitivity_source="magnitude",
        machine=machine,
        profile_sha256="0",
        profile_path="p.json",
    )
