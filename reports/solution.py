"""How the plan was found and how the network was trained to it."""

from __future__ import annotations

from ..planner.schema import Plan
from ..trainer.schema import TrainingHistory
from .facts import Fact, facts
from .format import duration, memory, percent, points, ratio, seconds, seconds_with_range, significant

_SENSITIVITY = {
    "calibration": "measured on calibration data, one layer at a time",
    "magnitude": "estimated from the size of the weights, without data",
}


def solution_facts(plan: Plan) -> tuple[Fact, ...]:
    """What the solver says of the plan, and what the plan adds up to."""
    solver, totals = plan.solver, plan.totals
    return facts(
        ("status", solver.status.replace("_", " ")),
        ("message", solver.message),
        *((f"pattern {each.pattern}", f"no kernel can use it: {each.reason}") for each in plan.unusable_patterns),
        ("objective", _loss(solver.objective)),
        ("bound", _loss(solver.bound)),
        ("gap", "none given" if solver.gap_frac is None else percent(solver.gap_frac)),
        ("time to solve", seconds(solver.time_s)),
        ("whole network, dense, predicted", seconds_with_range(totals.dense_time_s)),
        ("whole network, planned, predicted", seconds_with_range(totals.planned_time_s)),
        ("between the layers, predicted", seconds_with_range(totals.rest_time_s)),
        ("best reachable speedup, predicted", ratio(totals.best_reachable_speedup)),
        ("loss increase before training, predicted", f"{significant(totals.loss_increase)} nat"),
        ("loss increase was", _SENSITIVITY[plan.sensitivity_source]),
        ("model file, dense → planned", _sizes(plan)),
    )


def training_facts(history: TrainingHistory) -> tuple[Fact, ...]:
    """The outcome of training and what decided it."""
    config = history.config
    change = history.test_accuracy_frac - history.dense_test_accuracy_frac
    return facts(
        (
            "test accuracy, dense → planned",
            f"{percent(history.dense_test_accuracy_frac)} → {percent(history.test_accuracy_frac)} ({points(change)})",
        ),
        ("classes", str(history.classes)),
        ("took", duration(history.duration_s)),
        ("epochs", f"{len(history.epochs)} of {config.epochs}"),
        ("batch size", f"{config.batch_size} images"),
        ("optimiser", config.optimizer),
        ("learning rate", f"{config.learning_rate:g}, {config.schedule}, {config.warmup_epochs:g} epochs of warm-up"),
        ("momentum, weight decay", f"{config.momentum:g}, {config.weight_decay:g}"),
        ("label smoothing", f"{config.label_smoothing:g}"),
        ("taught by the dense model", percent(config.distillation) if config.distillation else "no"),
        ("pruning", f"over the first {percent(config.prune_frac)} of the epochs"),
        ("group lasso", f"{config.group_lasso:g}" if config.group_lasso else "off"),
        ("autocast", "bfloat16" if config.autocast_bfloat16 else "off"),
        ("seed", str(config.seed)),
    )


def _sizes(plan: Plan) -> str:
    totals = plan.totals
    if totals.dense_bytes is None or totals.planned_bytes is None:
        return "not recorded"
    return f"{memory(round(totals.dense_bytes))} → {memory(round(totals.planned_bytes))}, zeros packed"


def _loss(value_nat: float | None) -> str:
    return "none given" if value_nat is None else f"{significant(value_nat)} nat of loss"
