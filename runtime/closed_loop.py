"""Measure a plan before any training, and correct it until what is measured meets the target."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..kernels.problem import Problem
from ..kernels.progress import Progress
from ..kernels.spec import Machine
from ..perfmodel.schema import Interval
from ..planner.options import NO_KERNEL
from ..planner.schema import LayerPlan, Plan, Target
from ..profiles.stopwatch import HOST, Stopwatch
from ..trainer.assignment import assignment_of
from ..trainer.int8_layers import int8_layers, observe_inputs, with_int8
from ..trainer.low_rank import bring_to_low_rank, low_rank_layers
from ..trainer.masks import masked_layers, update_masks
from .bench import fastest, take
from .observe_outputs import observe_outputs
from .schema import LayerTime, LoopRound, Outcome, Take

MOST_CORRECTION = 1.5
"""A target is changed by at most this factor a round: one disturbed measurement must not ruin the plan."""
SURPLUS = 1.1
"""A plan that is faster than the target by more than this lost more than it had to: a milder one is tried. Measurements
of one network move by 5 to 15 % between processes."""

MOST_OFF = 1.5
"""Of the dense network's prediction from its measurement: what layers measure in a disturbed second stands for all
layers of their shape, and predicts networks many times too slow."""

Replan = Callable[[Target, tuple[Problem, ...], LoopRound], Plan | None]
"""Measures these problems, adds them to the profile, and plans for this target with it; None where what was measured
cannot be true beside that round (`is_believable`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopResult:
    """Where the loop ended.

    Attributes
    ----------
    plan : Plan
        That of the best round, with the target that was asked for.
    rounds : tuple of LoopRound
    kept : int
        Number of the best round: of those that met the target the one of least loss, else the fastest.
    outcome : Outcome
        "met"; "unchanged" where planning again gave the same plan; "disturbed" where layers could not be measured as
        fast as the network shows them to be; "infeasible" where the fastest plan that the solver knew after a round
        missed the target too; "out of rounds".
    """

    plan: Plan
    rounds: tuple[LoopRound, ...]
    kept: int
    outcome: Outcome

    @property
    def best(self) -> LoopRound:
        return self.rounds[self.kept]


def close_loop(
    model: nn.Module,
    plan: Plan,
    replan: Replan,
    *,
    example: Tensor,
    machine: Machine,
    rounds: int,
    budget_s: float,
    progress: Progress,
    watch: Stopwatch = HOST,
) -> LoopResult:
    """Build, measure, attribute, plan again.

    The network is pruned by magnitude, once: times depend on where zeros may be, not on what training makes of them.
    The solver is asked for as much more as the measurement missed the target by (`_correction`), on a profile to which
    the planned layers have been added; for less where the measurement exceeds it by `SURPLUS` and something was lost.

    Parameters
    ----------
    model : nn.Module
        With dense weights; not changed.
    rounds : int
        Most measurements, at least 1.
    budget_s : float
        For timing in each round.
    watch : Stopwatch
        Of the machine's device.
    """
    asked, wanted = plan.target, plan.target
    seen: list[LoopRound] = []
    plans: list[Plan] = []
    outcome: Outcome = "out of rounds"
    taken: Take | None = None
    for number in range(rounds):
        progress("closing the loop", number, rounds)
        # Later rounds leave out what the first one showed to be slow: building networks takes longer than timing them.
        taken = take(
            model,
            with_ranges(pruned(model, plan), plan, example),
            plan=plan,
            example=example,
            machine=machine,
            budget_s=budget_s,
            progress=progress,
            earlier=taken,
            watch=watch,
        )
        seen.append(_round_of(plan, taken, wanted))
        plans.append(plan)
        missed = _missed_by(seen[-1], asked)
        enough = missed * SURPLUS >= 1.0 or plan.totals.loss_increase <= 0.0
        if number and missed > 1.0 and plan.solver.status == "infeasible":
            outcome = "infeasible"
            break
        if number + 1 == rounds or (missed <= 1.0 and enough):
            break
        wanted = _scaled(wanted, _correction(seen[-1], asked))
        problems = tuple(
            dict.fromkeys(each for layer in plan.layers if layer.chosen != layer.dense for each in _measured_of(layer))
        )
        again = replan(wanted, problems, seen[-1])
        if again is None:
            outcome = "disturbed"
            break
        if assignment_of(again) == assignment_of(plan) and _kernels(again) == _kernels(plan):
            outcome = "unchanged"
            break
        plan = again
    progress("closing the loop", 1, 1)
    met = [number for number, each in enumerate(seen) if _missed_by(each, asked) <= 1.0]
    if met:
        outcome = "met"
        best = min(met, key=lambda number: (plans[number].totals.loss_increase, -seen[number].speedup))
    else:
        best = max(range(len(seen)), key=lambda number: seen[number].speedup)
    kept = _without_losers(plans[best], seen[best]).model_copy(update={"target": asked})
    return LoopResult(plan=kept, rounds=tuple(seen), kept=best, outcome=outcome)


def is_believable(plan: Plan, measured: LoopRound) -> bool:
    """Whether a plan's prediction of the dense network is near its measurement, or at least not farther than before."""

    def factor(predicted_s: float) -> float:
        ratio = predicted_s / measured.measured_dense_s
        return max(ratio, 1.0 / ratio)

    return factor(plan.totals.dense_time_s.median) <= max(MOST_OFF, factor(measured.predicted_dense_s))


def pruned(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy with the zeros of a plan, by magnitude, and its low ranks."""
    copied = copy.deepcopy(model).eval()
    bring_to_low_rank(copied, low_rank_layers(plan))
    update_masks(masked_layers(copied, assignment_of(plan)), done_frac=1.0)
    return copied


def with_ranges(model: nn.Module, plan: Plan, example: Tensor) -> nn.Module:
    """The network with its int8 layers, their ranges those of one batch; the model itself where there are none."""
    rounded = with_int8(model, int8_layers(plan))
    if rounded is not model:
        observe_inputs(rounded, [example])
        observe_outputs(rounded, plan, [example])
    return rounded


def _without_losers(plan: Plan, measured: LoopRound) -> Plan:
    """The plan with those layers dense that lost against their dense kernels."""
    lost = {layer.name: layer for layer in measured.layers if layer.reverted}
    back_s = sum(
        layer.calls * (layer.dense.time_s.median - layer.chosen.time_s.median)
        for layer in plan.layers
        if layer.name in lost
    )
    layers = tuple(
        layer.model_copy(
            update={
                "chosen": layer.dense,
                "problem": replace(layer.problem.as_dense(), dtype=layer.dense.dtype),
                "reason": _why_lost(lost[layer.name]),
            }
        )
        if layer.name in lost
        else layer
        for layer in plan.layers
    )
    planned = plan.totals.planned_time_s
    shifted = Interval(median=planned.median + back_s, low=planned.low + back_s, high=planned.high + back_s)
    return plan.model_copy(
        update={"layers": layers, "totals": plan.totals.model_copy(update={"planned_time_s": shifted})}
    )


def _why_lost(layer: LayerTime) -> str:
    times = f"{layer.time_s.median * 1e6:.0f} us, the dense kernel {layer.dense_time_s.median * 1e6:.0f} us"
    return f"lost when measured: {layer.kernel} took {times}"


def _round_of(plan: Plan, taken: Take, wanted: Target) -> LoopRound:
    dense_s, planned_s = (fastest(taken.networks, variant).time_s.median for variant in ("dense", "planned"))
    calls = {layer.name: layer.calls for layer in plan.layers}
    explained_s = sum(
        calls[layer.name]
        * ((layer.dense_time_s if layer.reverted else layer.time_s).median - layer.predicted_time_s.median)
        for layer in taken.layers
    )
    predicted_s = plan.totals.planned_time_s.median
    return LoopRound(
        solver_target=wanted,
        predicted_dense_s=plan.totals.dense_time_s.median,
        predicted_planned_s=predicted_s,
        measured_dense_s=dense_s,
        measured_planned_s=planned_s,
        layers=taken.layers,
        explained_s=explained_s,
        unexplained_s=planned_s - predicted_s - explained_s,
    )


def _missed_by(measured: LoopRound, target: Target) -> float:
    """Measured time over the time that was allowed."""
    if target.latency_s is not None:
        return measured.measured_planned_s / target.latency_s
    assert target.speedup is not None
    return target.speedup / measured.speedup


def _correction(measured: LoopRound, target: Target) -> float:
    """Factor on what the solver is asked for, at least 1 where the target was missed and at most 1 elsewhere.

    What measured layers explain the solver knows from now on; what else the network took beyond its prediction is taken
    to stay as it is, in seconds. Times are compared at the speed that the dense network shows the machine to have.
    """
    over_s = measured.measured_planned_s * (1.0 - 1.0 / _missed_by(measured, target))
    pace = measured.predicted_dense_s / measured.measured_dense_s
    predicted_s = measured.predicted_planned_s
    wanted_s = predicted_s - pace * (over_s - measured.explained_s)
    factor = predicted_s / wanted_s if wanted_s > 0.0 else MOST_CORRECTION
    low, high = (1.0, MOST_CORRECTION) if over_s > 0.0 else (1.0 / MOST_CORRECTION, 1.0)
    return min(max(factor, low), high)


def _scaled(target: Target, factor: float) -> Target:
    if target.latency_s is not None:
        return target.model_copy(update={"latency_s": target.latency_s / factor})
    assert target.speedup is not None
    return target.model_copy(update={"speedup": target.speedup * factor})


def _measured_of(layer: LayerPlan) -> tuple[Problem, ...]:
    """What a planned layer runs, and what it is compared with: dense at the same widths, and at its own."""
    dense = replace(layer.full_problem, dtype=layer.dense.dtype)
    if layer.chosen.kernel == NO_KERNEL:
        return (dense,)
    return dense, layer.problem.as_dense(), layer.problem


def _kernels(plan: Plan) -> tuple[str, ...]:
    return tuple(layer.chosen.kernel for layer in plan.layers)
