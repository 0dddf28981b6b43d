"""Plans of this machine, trained: accuracy against predicted and measured time over several targets, and guided."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import nn

from sparseplan.commands.plan import plan as make_plan
from sparseplan.model_spec import load_model
from sparseplan.planner.request import DEFAULT_PATTERNS
from sparseplan.planner.schema import DtypePolicy, Plan
from sparseplan.planner.store import load_plan, save_plan
from sparseplan.trainer.assignment import Assignment, assignment_of
from sparseplan.trainer.store import load_weights

from .options import ExperimentOptions
from .rivals import CHOICES, Rivals
from .variant import Variant, refuse_unknown, run_variants

SPEEDUPS = (1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What the planner may choose from."""

    patterns: tuple[str, ...] = DEFAULT_PATTERNS
    dtype: DtypePolicy = "float32"


DENSE, MIX = "dense", "mix"
WAYS = {
    MIX: Way(),
    "unstructured": Way(patterns=("unstructured",)),
    "filter+shape": Way(patterns=("filter+shape",)),
    "2:4": Way(patterns=("2:4",)),
    "block:16x1": Way(patterns=("block:16x1",)),
}
BFLOAT16 = {"mix in bfloat16": Way(dtype="any")}
RECIPE = {"learning_rate": 0.02, "distillation": 0.5}
BATCH = 64


def resnet20_sweep(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ResNet-20/CIFAR-10: each pattern, the planned mix and its rivals at eight target speedups; needs a profile."""
    return _sweep("resnet20", SPEEDUPS, WAYS, options, say)


def resnet56_planned(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ResNet-56/CIFAR-10 at 1.5x, 2x and 3x, the planned mix against single patterns and rivals; needs a profile."""
    return _sweep("resnet56", (1.5, 2.0, 3.0), {**WAYS, **BFLOAT16}, options, say)


def _sweep(
    name: str,
    speedups: tuple[float, ...],
    ways: Mapping[str, Way],
    options: ExperimentOptions,
    say: Callable[[str], None],
) -> str:
    start = partial(_start, options, name)
    rivals = Rivals(start(0), (BATCH, 3, 32, 32), profile=options.machine_profile)
    every = [DENSE, *(f"{label} {speedup:g}x" for speedup in speedups for label in (*ways, *CHOICES))]
    refuse_unknown(options.only, every)
    dense = Variant(name=DENSE, network=start, recipe={"learning_rate": 0.01})
    variants = [dense] if not options.only or DENSE in options.only else []
    for speedup in speedups:
        # A plan takes half a minute: those of variants that nobody asked for are not made.
        rows = {label: f"{label} {speedup:g}x" for label in (*ways, *CHOICES)}
        wanted = {label: row for label, row in rows.items() if not options.only or row in options.only}
        for label, row in wanted.items():
            if label in ways:
                plan: Plan | None = _plan(name, label, ways[label], speedup, options)
            else:
                plan = _rival(rivals, label, _plan(name, MIX, ways[MIX], speedup, options), speedup, options)
            if plan is not None and _is_worth_training(plan):
                variants.append(_variant(row, plan, start))
            else:
                sys.stderr.write(f"{row}: {'no way to be as fast' if plan is None else plan.solver.message}\n")
    data = options.splits("cifar10:")
    # What cannot be as fast is left out, though it was asked for.
    return run_variants(f"{name}-sweep", tuple(variants), data, options=replace(options, only=()), say=say)


def _variant(row: str, plan: Plan, start: Callable[[int], nn.Module]) -> Variant:
    return Variant(name=row, network=start, assign=partial(_planned, assignment_of(plan)), recipe=RECIPE, plan=plan)


def _is_worth_training(plan: Plan) -> bool:
    return plan.solver.status in ("optimal", "time_limit") and bool(assignment_of(plan))


def _rival(rivals: Rivals, label: str, mixed: Plan, speedup: float, options: ExperimentOptions) -> Plan | None:
    """A rival of the mix, at the time that is predicted for it; None where it cannot be as fast."""
    path = _path(label, speedup, options)
    if path.exists():
        return load_plan(path)
    plan = rivals.plan(label, mixed) if _is_worth_training(mixed) else None
    if plan is not None:
        save_plan(path, plan)
    return plan


def _plan(name: str, label: str, way: Way, speedup: float, options: ExperimentOptions) -> Plan:
    """The plan of a target, made once and kept beside the results."""
    path = _path(label, speedup, options)
    if path.exists():
        return load_plan(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_plan(
        f"zoo:{name}",
        (BATCH, 3, 32, 32),
        profile=options.machine_profile,
        out=path,
        weights=_weights(options, name),
        data=f"cifar10:{options.data}",
        target_speedup=speedup,
        patterns=way.patterns,
        dtype=way.dtype,
        progress=options.progress,
    )


def _path(label: str, speedup: float, options: ExperimentOptions) -> Path:
    return options.out / "plans" / f"{label.replace(':', '-').replace(' ', '-')}-{speedup:g}.json"


def _planned(assignment: Assignment, _: nn.Module) -> Assignment:
    return assignment


def _weights(options: ExperimentOptions, name: str) -> Path:
    return options.data / "weights" / f"{name}_cifar10jpeg.safetensors"


def _start(options: ExperimentOptions, name: str, seed: int) -> nn.Module:
    network = load_model(f"zoo:{name}", seed=seed)
    load_weights(network, _weights(options, name))
    return network
