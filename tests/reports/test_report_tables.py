"""The headline and the per-layer table say what the documents say."""

from __future__ import annotations

import pytest
from report_samples import (
    COMPACT_KERNEL,
    UNSTRUCTURED_KERNEL,
    conv,
    losing_measurements,
    sample_measurements,
    sample_plan,
)

from sparseplan.kernels.problem import Problem
from sparseplan.planner.schema import Target
from sparseplan.reports.layers import describe_work, layer_table
from sparseplan.reports.solution import solution_facts
from sparseplan.reports.tables import Row, headline_table
from sparseplan.reports.verdict import check_target, give_verdict

PLAN = sample_plan()
MEASURED = sample_measurements(PLAN)


def test_headline_rows() -> None:
    assert headline_table(MEASURED, PLAN) == (
        Row(
            name="dense",
            how="compile, float32",
            accuracy="98.1 %",
            measured_time="3.55 ms (3.51–3.59)",
            predicted_time="3.44 ms (3.25–3.65)",
            speedup="1.00×",
            shipped=False,
        ),
        Row(
            name="planned",
            how="compile, float32, 6 of 10 layers run sparse",
            accuracy="97.8 %",
            measured_time="1.90 ms (1.88–1.92)",
            predicted_time="1.97 ms (1.82–2.13)",
            speedup="1.87× (1.83–1.91)",
            shipped=True,
        ),
    )


def test_the_dense_row_is_marked_where_dense_is_kept() -> None:
    assert [row.shipped for row in headline_table(losing_measurements(PLAN), PLAN)] == [True, False]


def test_verdict_where_pruning_pays() -> None:
    verdict = give_verdict(MEASURED, PLAN.solver)
    assert verdict == (
        "1.87× faster than the best dense way to run this network on this machine, accuracy 98.1 % → 97.8 %."
    )


def test_verdict_where_pruning_loses() -> None:
    verdict = give_verdict(losing_measurements(PLAN), PLAN.solver)
    assert verdict == (
        "Pruning is not worth it on this machine: the planned network takes 3.80 ms, the best dense way to run it "
        "3.55 ms (0.934×), so the dense network is kept."
    )


@pytest.mark.parametrize("shipped", ["dense", "planned"])
def test_verdict_where_the_gain_is_within_the_noise(shipped: str) -> None:
    speedup = MEASURED.speedup.model_copy(update={"median": 1.02, "low": 0.98, "high": 1.06})
    verdict = give_verdict(MEASURED.model_copy(update={"speedup": speedup, "shipped": shipped}), PLAN.solver)
    assert "not clearly worth it" in verdict
    assert "1.02× (0.980–1.06)" in verdict
    assert f"the {shipped} network is kept" in verdict


def test_verdict_where_the_planner_found_nothing_faster() -> None:
    solver = PLAN.solver.model_copy(
        update={"status": "not_worth_it", "message": "no sparse kernel beats the dense one"}
    )
    verdict = give_verdict(losing_measurements(PLAN), solver)
    assert verdict == "Pruning is not worth it on this machine: no sparse kernel beats the dense one."


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (Target(speedup=1.5), "met"),
        (Target(speedup=1.85), "met, within the uncertainty"),
        (Target(speedup=2.0), "missed"),
        (Target(latency_s=2e-3), "met"),
        (Target(latency_s=1.901e-3), "met, within the uncertainty"),
        (Target(latency_s=1e-3), "missed"),
        (Target(max_accuracy_drop_points=0.5), "met"),
        (Target(max_accuracy_drop_points=0.1), "missed"),
        (Target(throughput_per_s=8300.0), "met"),
        (Target(throughput_per_s=8400.0), "met, within the uncertainty"),
        (Target(throughput_per_s=8600.0), "missed"),
        (Target(model_bytes=2e6), "met"),
        (Target(model_bytes=1e6), "missed"),
        (Target(speedup=1.5, latency_s=2e-3), "met"),
        (Target(speedup=1.5, latency_s=1e-3), "missed"),
        (Target(speedup=1.85, latency_s=2e-3), "met, within the uncertainty"),
    ],
)
def test_target(target: Target, status: str) -> None:
    assert check_target(target, MEASURED, batch=16, planned_bytes=1.5e6).status == status


def test_target_names_what_was_asked_and_found() -> None:
    check = check_target(Target(max_accuracy_drop_points=0.5), MEASURED, batch=16)
    assert "at most 0.5 points" in check.asked
    assert check.measured == "−0.3 points of accuracy"


def test_layer_rows_follow_the_plan_and_flag_what_was_reverted() -> None:
    rows = layer_table(PLAN, MEASURED)
    assert [row.name for row in rows] == [layer.name for layer in PLAN.layers]
    assert [row.name for row in rows if row.outcome == "reverted"] == ["layer3.1.depthwise"]
    assert [row.name for row in rows if row.outcome == "kept dense"] == ["stem", "layer2.0.shortcut", "head"]
    reverted = next(row for row in rows if row.outcome == "reverted")
    assert reverted.speedup == "0.288×"


def test_a_planned_layer_without_a_measurement_says_so() -> None:
    rows = layer_table(PLAN, MEASURED.model_copy(update={"layers": ()}))
    sparse = next(row for row in rows if row.pattern == "unstructured")
    assert sparse.outcome == "not measured"
    assert sparse.measured.value == "not measured"
    assert sparse.predicted.value == "822 µs"
    assert sparse.speedup == "–"


def test_candidates_hold_the_choice_and_the_dense_rival_once_and_fastest_first() -> None:
    row = next(row for row in layer_table(PLAN, MEASURED) if row.name == "layer3.0.conv1")
    assert [candidate.note for candidate in row.candidates].count("chosen") == 1
    assert [candidate.note for candidate in row.candidates].count("best dense") == 1
    # filter at 75 % is both the choice and one of those considered
    assert len([c for c in row.candidates if (c.pattern, c.sparsity) == ("filter", "75.0 %")]) == 1
    speedups = [float(candidate.predicted_speedup.removesuffix("×")) for candidate in row.candidates]
    assert speedups == sorted(speedups, reverse=True)


def test_a_choice_outside_the_measured_range_is_marked() -> None:
    first = PLAN.layers[0]
    outside = first.model_copy(update={"chosen": first.chosen.model_copy(update={"extrapolated": True})})
    rows = layer_table(PLAN.model_copy(update={"layers": (outside, *PLAN.layers[1:])}), MEASURED)
    assert rows[0].extrapolated
    assert not rows[1].extrapolated
    assert [row.note for row in rows[0].candidates if "chosen" in row.note] == ["chosen, outside the measured range"]


def test_limits_of_each_pattern() -> None:
    row = layer_table(PLAN, MEASURED)[1]
    assert [(limit.way, limit.break_even, limit.useful_up_to) for limit in row.limits] == [
        (f"unstructured on {UNSTRUCTURED_KERNEL}", "68.0 %", "96.0 %"),
        (f"filter on {COMPACT_KERNEL}", "16.0 %", "no limit"),
    ]


@pytest.mark.parametrize(
    ("problem", "calls", "text"),
    [
        (conv(1, 64, 128, 32, stride=2), 1, "conv 3×3, 64→128 at 16×16, stride 2"),
        (conv(1, 64, 64, 8, groups=64), 1, "depth-wise conv 3×3, 64→64 at 8×8"),
        (conv(1, 64, 64, 8, kernel=1, groups=4), 3, "conv 1×1, 64→64 at 8×8, 4 groups, 3 calls"),
        (Problem(op="linear", n=8, c_in=256, c_out=10), 1, "linear 256→10"),
    ],
)
def test_describe_work(problem: Problem, calls: int, text: str) -> None:
    assert describe_work(problem, calls=calls) == text


def test_the_solver_says_what_it_minimised_and_how_surely() -> None:
    shown = {fact.name: fact.value for fact in solution_facts(PLAN)}
    assert (shown["objective"], shown["bound"], shown["gap"]) == ("0.0612 nat of loss", "0.0610 nat of loss", "0.3 %")
    infeasible = PLAN.solver.model_copy(update={"objective": None, "bound": None, "gap_frac": None})
    shown = {fact.name: fact.value for fact in solution_facts(PLAN.model_copy(update={"solver": infeasible}))}
    assert (shown["objective"], shown["bound"], shown["gap"]) == ("none given", "none given", "none given")
