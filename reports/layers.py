"""The per-layer table: what was planned, what it should have taken, what it took, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..kernels.problem import Problem
from ..perfmodel.schema import Interval
from ..planner.reasons import OTHER_DENSE
from ..planner.schema import Candidate, LayerPlan, Plan
from ..profiles.timing import TimeStats
from ..runtime.schema import LayerTime, Measurements
from .format import percent, ratio, seconds, seconds_range, seconds_with_range, significant

Outcome = Literal["planned", "reverted", "kept dense", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """One way to run a layer that was considered, formatted; every time in it is predicted."""

    pattern: str
    sparsity: str
    kernel: str
    dtype: str
    predicted: str
    predicted_speedup: str
    loss_increase: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLimits:
    """Between which sparsities a pattern on a kernel is worth using in a layer, formatted."""

    way: str
    break_even: str
    useful_up_to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeCell:
    """A time and its interval, formatted; no interval where nothing was measured."""

    value: str
    interval: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One layer of the plan, formatted."""

    name: str
    work: str
    pattern: str
    sparsity: str
    kernel: str
    dense_kernel: str
    predicted: TimeCell
    measured: TimeCell
    dense: TimeCell
    speedup: str
    outcome: Outcome
    extrapolated: bool
    """Whether the choice lies outside what was measured for the performance model."""
    binding_resource: str
    reason: str
    candidates: tuple[CandidateRow, ...]
    limits: tuple[KernelLimits, ...]


def layer_table(plan: Plan, measurements: Measurements) -> tuple[LayerRow, ...]:
    """One row a layer, in the plan's order; times are of one call of the layer."""
    measured = {layer.name: layer for layer in measurements.layers}
    return tuple(_row(layer, measured.get(layer.name)) for layer in plan.layers)


def describe_work(problem: Problem, *, calls: int) -> str:
    """The work of a layer in a few characters: ``conv 3×3, 64→128 at 16×16``."""
    if problem.op == "linear":
        text = f"linear {problem.c_in}→{problem.c_out}"
    else:
        kind = "depth-wise conv" if 1 < problem.groups == problem.c_in else "conv"
        text = f"{kind} {_by(problem.kernel)}, {problem.c_in}→{problem.c_out} at {_by((problem.h_out, problem.w_out))}"
        if problem.groups > 1 and kind == "conv":
            text += f", {problem.groups} groups"
        if problem.stride != (1, 1):
            text += f", stride {_by(problem.stride) if len(set(problem.stride)) > 1 else problem.stride[0]}"
    return text + (f", {calls} calls" if calls > 1 else "")


def _row(layer: LayerPlan, measured: LayerTime | None) -> LayerRow:
    return LayerRow(
        name=layer.name,
        work=describe_work(layer.problem, calls=layer.calls),
        pattern=OTHER_DENSE if layer.chosen.other_dense else layer.chosen.pattern,
        sparsity=percent(layer.chosen.sparsity),
        kernel=layer.chosen.kernel,
        dense_kernel=layer.dense.kernel,
        predicted=_cell(layer.chosen.time_s if measured is None else measured.predicted_time_s),
        measured=_cell(None if measured is None else measured.time_s),
        dense=_cell(None if measured is None else measured.dense_time_s),
        speedup="–" if measured is None else ratio(measured.dense_time_s.median / measured.time_s.median),
        outcome=_outcome(layer, measured),
        extrapolated=layer.chosen.extrapolated,
        binding_resource=layer.binding_resource,
        reason=layer.reason,
        candidates=tuple(_candidate_row(candidate, layer) for candidate in _all_candidates(layer)),
        limits=tuple(
            KernelLimits(
                way=way,
                break_even="never" if sparsity is None else percent(sparsity),
                useful_up_to=_limit(layer.useful_sparsity.get(way)),
            )
            for way, sparsity in layer.break_even_sparsity.items()
        ),
    )


def _outcome(layer: LayerPlan, measured: LayerTime | None) -> Outcome:
    if measured is not None:
        return "reverted" if measured.reverted else "planned"
    kept = layer.chosen.pattern == "dense" and not layer.chosen.other_dense
    return "kept dense" if kept else "not measured"


def _all_candidates(layer: LayerPlan) -> tuple[Candidate, ...]:
    """The choice, the dense rival and the losers, fastest first, each once."""
    unique = dict.fromkeys(
        (candidate.pattern, candidate.sparsity, candidate.kernel, candidate.dtype)
        for candidate in (layer.chosen, layer.dense, *layer.considered)
    )
    by_key = {
        (candidate.pattern, candidate.sparsity, candidate.kernel, candidate.dtype): candidate
        for candidate in (*layer.considered, layer.dense, layer.chosen)
    }
    return tuple(sorted((by_key[key] for key in unique), key=lambda candidate: candidate.time_s.median))


def _candidate_row(candidate: Candidate, layer: LayerPlan) -> CandidateRow:
    notes = [
        note
        for note, holds in (
            ("chosen", candidate == layer.chosen),
            ("best dense", candidate == layer.dense),
            ("outside the measured range", candidate.extrapolated),
        )
        if holds
    ]
    time_s = candidate.time_s.median
    return CandidateRow(
        pattern=OTHER_DENSE if candidate.other_dense else candidate.pattern,
        sparsity=percent(candidate.sparsity),
        kernel=candidate.kernel,
        dtype=candidate.dtype,
        predicted=seconds_with_range(candidate.time_s) if time_s > 0.0 else seconds(time_s),
        predicted_speedup=ratio(layer.dense.time_s.median / time_s) if time_s > 0.0 else "–",
        loss_increase=significant(candidate.loss_increase),
        note=", ".join(notes),
    )


def _cell(time_s: TimeStats | Interval | None) -> TimeCell:
    if time_s is None:
        return TimeCell(value="not measured")
    return TimeCell(value=seconds(time_s.median), interval=seconds_range(time_s))


def _limit(sparsity: float | None) -> str:
    return "no limit" if sparsity is None else percent(sparsity)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
