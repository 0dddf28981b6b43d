"""Planned networks on a GPU, from its own profile: planned, pruned, measured against the best dense way to run them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparseplan.commands.plan import plan as make_plan
from sparseplan.kernels.errors import SparseplanError
from sparseplan.kernels.progress import silent
from sparseplan.kernels.spec import Machine
from sparseplan.model_spec import load_model
from sparseplan.planner.example import random_example
from sparseplan.planner.schema import DtypePolicy
from sparseplan.profiles.stopwatch import Stopwatch
from sparseplan.runtime.bench import fastest, take
from sparseplan.runtime.closed_loop import pruned

TAKE_S = 6.0
"""For timing one network's layers and ways to run it; building these comes on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCase:
    """A network at one batch with the speedup that is asked of its plan."""

    model: str
    shape: tuple[int, ...]
    speedup: float
    dtype: DtypePolicy = "bfloat16"


NETWORK_CASES = tuple(
    NetworkCase(model=model, shape=(batch, 3, 224, 224), speedup=1.3)
    for batch in (64, 1)
    for model in ("zoo:resnet50", "zoo:vit_small")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRow:
    """What became of one case.

    Attributes
    ----------
    status : str or None
        Of the solver.
    dense_host, planned_host : str or None
        The fastest way to run each.
    reverted : int
        Of the `swapped` layers, those that lost against their dense kernels and ran densely.
    shipped : str or None
        "dense" where the planned network is not faster.
    reason : str or None
        Why there is no time.
    """

    case: str
    asked: float
    status: str | None = None
    predicted_dense_s: float | None = None
    predicted_planned_s: float | None = None
    dense_s: float | None = None
    dense_host: str | None = None
    planned_s: float | None = None
    planned_host: str | None = None
    speedup: float | None = None
    swapped: int = 0
    reverted: int = 0
    output_error: float | None = None
    shipped: str | None = None
    reason: str | None = None


def measure_networks(
    cases: tuple[NetworkCase, ...],
    *,
    profile: Path,
    folder: Path,
    machine: Machine,
    watch: Stopwatch,
    until_s: float,
) -> Iterator[NetworkRow]:
    """Plan and measure networks until a moment of `time.perf_counter`; plans go into a folder.

    Weights are random and pruned by magnitude: times depend on where the zeros are, not on what was learnt.
    """
    for case in cases:
        name = f"{case.model} {case.dtype} batch {case.shape[0]}"
        if time.perf_counter() > until_s:
            yield NetworkRow(case=name, asked=case.speedup, reason="left out, no time")
            continue
        try:
            yield _measured(name, case, profile, folder, machine, watch)
        except (RuntimeError, SparseplanError) as failure:
            # What torch, the driver and our kernels raise; the other networks still have something to say.
            line = (str(failure).splitlines() or [""])[0][:200]
            yield NetworkRow(case=name, asked=case.speedup, reason=f"{type(failure).__name__}: {line}")


def _measured(
    name: str, case: NetworkCase, profile: Path, folder: Path, machine: Machine, watch: Stopwatch
) -> NetworkRow:
    out = folder / f"plan-{case.model.partition(':')[2]}-b{case.shape[0]}.json"
    plan = make_plan(case.model, case.shape, profile=profile, out=out, dtype=case.dtype, target_speedup=case.speedup)
    model = load_model(case.model).eval()
    taken = take(
        model,
        pruned(model, plan),
        plan=plan,
        example=random_example(model, case.shape),
        machine=machine,
        budget_s=TAKE_S,
        progress=silent,
        watch=watch,
    )
    dense, planned = fastest(taken.networks, "dense"), fastest(taken.networks, "planned")
    speedup = dense.time_s.median / planned.time_s.median
    return NetworkRow(
        case=name,
        asked=case.speedup,
        status=plan.solver.status,
        predicted_dense_s=plan.totals.dense_time_s.median,
        predicted_planned_s=plan.totals.planned_time_s.median,
        dense_s=dense.time_s.median,
        dense_host=dense.host,
        planned_s=planned.time_s.median,
        planned_host=planned.host,
        speedup=speedup,
        swapped=len(taken.layers),
        reverted=sum(layer.reverted for layer in taken.layers),
        output_error=taken.output_error,
        shipped="planned" if speedup > 1.0 else "dense",
    )
