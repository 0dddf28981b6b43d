"""Plans of this machine, trained: accuracy against predicted and measured time over several targets, and guided."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from sparseplan.commands.plan import plan as make_plan
from sparseplan.model_spec import load_model
from sparseplan.planner.schema import Plan
from sparseplan.planner.store import load_plan
from sparseplan.trainer.assignment import Assignment, assignment_of
from sparseplan.trainer.store import load_weights

from .options import ExperimentOptions
from .variant import Variant, run_variants

SPEEDUPS = (1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
PATTERNS = {
    "mix": None,
    "unstructured": ("unstructured",),
    "filter+shape": ("filter+shape",),
    "2:4": ("2:4",),
    "block:16x1": ("block:16x1",),
}
RECIPE = {"learning_rate": 0.02, "distillation": 0.5}
BATCH = 64


def resnet20_sweep(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ResNet-20/CIFAR-10: every pattern and the planned mix at eight target speedups; needs OUT/profile.json."""
    return _sweep("resnet20", SPEEDUPS, options, say)


def resnet56_planned(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ResNet-56/CIFAR-10 at 1.5x, 2x and 3x, the planned mix against single patterns; needs OUT/profile.json."""
    return _sweep("resnet56", (1.5, 2.0, 3.0), options, say)


def _sweep(name: str, speedups: tuple[float, ...], options: ExperimentOptions, say: Callable[[str], None]) -> str:
    start = partial(_start, options, name)
    variants = [Variant(name="dense", network=start, recipe={"learning_rate": 0.01})]
    for label, patterns in PATTERNS.items():
        for speedup in speedups:
            plan = _plan(name, label, patterns, speedup, options)
            if plan.solver.status in ("optimal", "time_limit") and assignment_of(plan):
                assign: Callable[[nn.Module], Assignment] = partial(_planned, assignment_of(plan))
                variants.append(Variant(name=f"{label} {speedup:g}x", network=start, assign=assign, recipe=RECIPE))
            else:
                sys.stderr.write(f"{label} at {speedup:g}x: {plan.solver.message}\n")
    return run_variants(f"{name}-sweep", tuple(variants), options.splits("cifar10:"), options=options, say=say)


def _plan(name: str, label: str, patterns: tuple[str, ...] | None, speedup: float, options: ExperimentOptions) -> Plan:
    """The plan of a target, made once and kept beside the results."""
    path = options.out / "plans" / f"{label.replace(':', '-')}-{speedup:g}.json"
    if path.exists():
        return load_plan(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    allowed = {} if patterns is None else {"patterns": patterns}
    return make_plan(
        f"zoo:{name}",
        (BATCH, 3, 32, 32),
        profile=options.out / "profile.json",
        out=path,
        weights=_weights(options, name),
        data=f"cifar10:{options.data}",
        target_speedup=speedup,
        progress=options.progress,
        **allowed,
    )


def _planned(assignment: Assignment, _: nn.Module) -> Assignment:
    return assignment


def _weights(options: ExperimentOptions, name: str) -> Path:
    return options.data / "weights" / f"{name}_cifar10jpeg.safetensors"


def _start(options: ExperimentOptions, name: str, seed: int) -> nn.Module:
    network = load_model(f"zoo:{name}", seed=seed)
    load_weights(network, _weights(options, name))
    return network
