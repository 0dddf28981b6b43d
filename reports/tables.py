"""The headline table, dense against planned, shared by the HTML report and the command line."""

from __future__ import annotations

from dataclasses import dataclass

from ..planner.reasons import OTHER_DENSE
from ..planner.schema import Plan
from ..runtime.schema import Measurements, NetworkTime
from .format import percent, ratio, ratio_with_range, seconds_with_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network of the headline table, formatted; `shipped` marks the one that bench decided to keep."""

    name: str
    how: str
    accuracy: str
    measured_time: str
    predicted_time: str
    speedup: str
    shipped: bool


def headline_table(measurements: Measurements, plan: Plan) -> tuple[Row, ...]:
    """Dense against planned: accuracy, measured time (95 % interval), predicted time (90 % interval), speedup."""
    return (
        Row(
            name="dense",
            how=host_and_dtype(measurements.best_dense),
            accuracy=percent(measurements.dense_accuracy_frac),
            measured_time=seconds_with_range(measurements.best_dense.time_s),
            predicted_time=seconds_with_range(measurements.predicted_dense_time_s),
            speedup=ratio(1.0),
            shipped=measurements.shipped == "dense",
        ),
        Row(
            name="planned",
            how=f"{host_and_dtype(measurements.best_planned)}, {_sparse_layers(measurements, plan)}",
            accuracy=percent(measurements.planned_accuracy_frac),
            measured_time=seconds_with_range(measurements.best_planned.time_s),
            predicted_time=seconds_with_range(measurements.predicted_planned_time_s),
            speedup=ratio_with_range(measurements.speedup),
            shipped=measurements.shipped == "planned",
        ),
    )


def host_and_dtype(network: NetworkTime) -> str:
    """How torch ran a network: ``compile, float32``."""
    return f"{network.host}, {network.dtype}"


def _sparse_layers(measurements: Measurements, plan: Plan) -> str:
    reverted = {layer.name for layer in measurements.layers if layer.reverted}
    sparse = [layer for layer in plan.layers if layer.chosen.pattern != "dense" and layer.name not in reverted]
    others = [layer for layer in plan.layers if layer.chosen.other_dense and layer.name not in reverted]
    more = f", {len(others)} {OTHER_DENSE}" if others else ""
    return f"{len(sparse)} of {len(plan.layers)} layers run sparse{more}"
