"""``sparseplan tune``: measure a plan before training and correct it until the measurement meets the target."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import torch

from ..kernels.documents import require_writable
from ..kernels.errors import InputError
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.registry import REGISTRY
from ..model_spec import load_model
from ..planner.example import random_example
from ..planner.schema import Plan, Target
from ..planner.store import load_plan, save_plan
from ..profiles.extend_profile import extend_profile
from ..profiles.fingerprint import differences, read_fingerprint
from ..profiles.stopwatch import stopwatch_of
from ..profiles.store import load_profile, save_profile
from ..runtime.closed_loop import LoopResult, close_loop, is_believable
from ..runtime.planned_machine import planned_machine
from ..runtime.schema import LoopReport, LoopRound
from ..runtime.store import save_loop
from ..trainer.store import load_weights
from .plan import plan as make_plan

ROUNDS = 3
BUDGET_S = 20.0
"""For timing in each round."""
ATTEMPTS = 2
"""To measure layers that agree with the network that they are part of."""


def tune(
    plan: str | Path,
    *,
    out: str | Path | None = None,
    profile: str | Path | None = None,
    weights: str | Path | None = None,
    data: str | None = None,
    rounds: int = ROUNDS,
    progress: Progress = silent,
) -> LoopReport:
    """Build the planned network with weights pruned by magnitude, measure it, and plan again where it misses.

    Also where it exceeds it by far: a milder plan loses less.

    What each round measures of layers is added to a profile beside the plan.

    Parameters
    ----------
    plan : path
        For a speedup or a latency.
    out : path, optional
        Where the corrected plan goes, with a report and the longer profile beside it; over the old one when left out.
    profile : path, optional
        That of the plan when left out.
    weights, data : optional
        As they were given to ``sparseplan plan``.
    rounds : int
        Most measurements.

    Raises
    ------
    InputError
        If the plan is for an accuracy, or its profile is of another machine.
    """
    source = Path(plan)
    target = source if out is None else Path(out)
    require_writable(target)
    first = load_plan(source)
    if first.target.speedup is None and first.target.latency_s is None:
        raise InputError(f"{source} is for an accuracy, which is not measured here; plan for a speedup or a latency")
    if rounds < 1:
        raise InputError(f"--rounds {rounds}: allowed is 1 or more")
    machine = planned_machine(first)
    watch = stopwatch_of(machine.device)
    known = load_profile(Path(first.profile_path) if profile is None else Path(profile))
    other = differences(known.fingerprint, read_fingerprint(machine))
    if other:
        raise InputError(f"the profile of {source} is of another machine ({'; '.join(other)}); plan again on this one")
    model = load_model(first.model).eval()
    if weights is not None:
        load_weights(model, Path(weights))
    longer = target.with_suffix(".profile.json")

    def replan(wanted: Target, problems: tuple[Problem, ...], measured: LoopRound) -> Plan | None:
        nonlocal known
        for _ in range(ATTEMPTS):
            extended = extend_profile(
                known, problems, machine=machine, registry=REGISTRY, watch=watch, progress=progress
            )
            save_profile(longer, extended)
            again = plan_for(wanted)
            if is_believable(again, measured):
                known = extended
                return again
        save_profile(longer, known)
        return None

    def plan_for(wanted: Target) -> Plan:
        return make_plan(
            first.model,
            first.input_shape,
            profile=longer,
            out=target,
            weights=weights,
            data=data,
            target_speedup=wanted.speedup,
            target_latency_ms=None if wanted.latency_s is None else wanted.latency_s * 1e3,
            dtype=first.dtype_policy,
            patterns=first.patterns,
            database=first.pruned_layers_path if data is not None else None,
            shared_widths=bool(first.widths or first.fixed_widths),
            progress=progress,
        )

    threads_before = torch.get_num_threads()
    if machine.device == "cpu":
        torch.set_num_threads(first.threads)
    try:
        result = close_loop(
            model,
            first,
            replan,
            example=random_example(model, first.input_shape),
            machine=machine,
            rounds=rounds,
            budget_s=BUDGET_S,
            watch=watch,
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads_before)
    save_plan(target, result.plan)
    report = LoopReport(
        created=datetime.now(UTC),
        fingerprint=read_fingerprint(machine),
        target=first.target,
        outcome=result.outcome,
        rounds=result.rounds,
        kept=result.kept,
        verdict=_verdict(result),
    )
    save_loop(target.with_suffix(".tune.json"), report)
    return report


def _verdict(result: LoopResult) -> str:
    best, target = result.best, result.plan.target
    measured = f"{best.measured_planned_s * 1e3:.3g} ms, {best.speedup:.2f}x of dense"
    asked = f"{target.speedup:g}x" if target.latency_s is None else f"{target.latency_s * 1e3:g} ms"
    count = f"{len(result.rounds)} round{'s' if len(result.rounds) > 1 else ''}"
    if result.outcome == "met":
        return f"Target {asked} met: measured {measured}, after {count}."
    reachable = "dense is the fastest" if best.speedup <= 1.0 else f"reachable here is {measured}"
    if result.outcome == "disturbed":
        reachable += (
            "; layers measured far slower than the network that they are part of, other programs disturb this machine: "
            "run it again when it is idle"
        )
    return f"Target {asked} missed after {count} ({result.outcome}): {reachable}."
