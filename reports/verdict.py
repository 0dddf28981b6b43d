"""What the run comes to, in plain words: was pruning worth it, and was the target met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..planner.schema import SolverReport, Target
from ..runtime.schema import Measurements
from .format import memory, percent, points, ratio, ratio_with_range, seconds, seconds_with_range, significant

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


def check_target(
    target: Target, measurements: Measurements, *, batch: int, planned_bytes: float | None = None
) -> TargetCheck:
    """Hold the measurement of the planned network against all that was asked for; the worst answer counts.

    Parameters
    ----------
    batch : int
        Images of one forward pass.
    planned_bytes : float, optional
        Of the model as a file, as its plan counts them.
    """
    checks = tuple(_checks(target, measurements, batch, planned_bytes)) or (_worth(measurements),)
    return TargetCheck(
        asked="; ".join(check.asked for check in checks),
        measured="; ".join(check.measured for check in checks),
        status=max((check.status for check in checks), key=_FROM_GOOD_TO_BAD.index),
    )


_FROM_GOOD_TO_BAD: tuple[TargetStatus, ...] = ("met", "met, within the uncertainty", "missed")


def _checks(
    target: Target, measurements: Measurements, batch: int, planned_bytes: float | None
) -> Iterator[TargetCheck]:
    speedup, time_s = measurements.speedup, measurements.best_planned.time_s
    if target.speedup is not None:
        yield TargetCheck(
            asked=f"at least {ratio(target.speedup)} as fast as the best dense network",
            measured=f"{ratio_with_range(speedup)}, from the 95 % intervals of both times",
            status=_status(speedup.median >= target.speedup, speedup.low >= target.speedup),
        )
    if target.latency_s is not None:
        yield TargetCheck(
            asked=f"at most {seconds(target.latency_s)} a forward pass",
            measured=f"{seconds_with_range(time_s)}, 95 % interval",
            status=_status(time_s.median <= target.latency_s, time_s.high <= target.latency_s),
        )
    if target.throughput_per_s is not None:
        rates = [batch / each for each in (time_s.median, time_s.high)]
        yield TargetCheck(
            asked=f"at least {target.throughput_per_s:g} images a second",
            measured=f"{significant(rates[0])} images a second, {significant(rates[1])} at worst",
            status=_status(rates[0] >= target.throughput_per_s, rates[1] >= target.throughput_per_s),
        )
    if target.max_accuracy_drop_points is not None:
        drop_frac = measurements.dense_accuracy_frac - measurements.planned_accuracy_frac
        is_met = 100.0 * drop_frac <= target.max_accuracy_drop_points
        yield TargetCheck(
            asked=f"at most {target.max_accuracy_drop_points:g} points of accuracy lost",
            measured=f"{points(-drop_frac)} of accuracy",
            status=_status(is_met, is_met),
        )
    if target.model_bytes is not None and planned_bytes is not None:
        is_met = planned_bytes <= target.model_bytes
        yield TargetCheck(
            asked=f"a model of at most {memory(round(target.model_bytes))} as a file",
            measured=f"{memory(round(planned_bytes))}, counted from the plan",
            status=_status(is_met, is_met),
        )


def _worth(measurements: Measurements) -> TargetCheck:
    """Of a plan without a target: SAS takes time for accuracy."""
    gained_frac = measurements.planned_accuracy_frac - measurements.dense_accuracy_frac
    return TargetCheck(
        asked="more accuracy than the dense network, by activation sparsification (SAS)",
        measured=f"{points(gained_frac)} of accuracy at {ratio(measurements.speedup.median)} of the dense speed",
        status=_status(gained_frac > 0.0, gained_frac > 0.0),
    )


def _status(holds: bool, holds_surely: bool) -> TargetStatus:
    if not holds:
        return "missed"
    return "met" if holds_surely else "met, within the uncertainty"
