"""What the run comes to, in plain words: was pruning worth it, and was the target met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..planner.schema import SolverReport, Target
from ..runtime.schema import Measurements
from .format import percent, points, ratio, ratio_with_range, seconds, seconds_with_range

TargetStatus = Literal["met", "met, within the uncertainty", "missed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCheck:
    """What was asked, what was measured, and whether that is enough."""

    asked: str
    measured: str
    status: TargetStatus


def give_verdict(measurements: Measurements, solver: SolverReport) -> str:
    """The headline of the report, one sentence: what was measured, or why the planner left the network dense."""
    speedup = measurements.speedup
    dense, planned = measurements.best_dense.time_s, measurements.best_planned.time_s
    if measurements.shipped == "planned" and speedup.low > 1.0:
        return (
            f"{ratio(speedup.median)} faster than the best dense way to run this network on this machine, accuracy "
            f"{percent(measurements.dense_accuracy_frac)} → {percent(measurements.planned_accuracy_frac)}."
        )
    if solver.status == "not_worth_it":
        return f"Pruning is not worth it on this machine: {solver.message}."
    kept = f"the {measurements.shipped} network is kept"
    if speedup.median > 1.0:
        return (
            f"Pruning is not clearly worth it on this machine: {ratio_with_range(speedup)} against the best dense way "
            f"to run this network, so {kept}."
        )
    return (
        f"Pruning is not worth it on this machine: the planned network takes {seconds(planned.median)}, the best dense "
        f"way to run it {seconds(dense.median)} ({ratio(speedup.median)}), so {kept}."
    )


def check_target(target: Target, measurements: Measurements) -> TargetCheck:
    """Hold the measurement of the planned network against what was asked for."""
    if target.speedup is not None:
        speedup = measurements.speedup
        return TargetCheck(
            asked=f"at least {ratio(target.speedup)} as fast as the best dense network",
            measured=f"{ratio_with_range(speedup)}, from the 95 % intervals of both times",
            status=_status(speedup.median >= target.speedup, speedup.low >= target.speedup),
        )
    if target.latency_s is not None:
        time_s = measurements.best_planned.time_s
        return TargetCheck(
            asked=f"at most {seconds(target.latency_s)} a forward pass",
            measured=f"{seconds_with_range(time_s)}, 95 % interval",
            status=_status(time_s.median <= target.latency_s, time_s.high <= target.latency_s),
        )
    allowed_points = target.max_accuracy_drop_points or 0.0
    drop_frac = measurements.dense_accuracy_frac - measurements.planned_accuracy_frac
    is_met = 100.0 * drop_frac <= allowed_points
    return TargetCheck(
        asked=f"the fastest network that loses at most {allowed_points:g} points of accuracy",
        measured=f"{points(-drop_frac)} of accuracy",
        status=_status(is_met, is_met),
    )


def _status(holds: bool, holds_surely: bool) -> TargetStatus:
    if not holds:
        return "missed"
    return "met" if holds_surely else "met, within the uncertainty"
