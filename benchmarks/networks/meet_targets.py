"""Plan networks for speedups, measure, correct, and count how often the target is met; also resnet50 at fixed sparsity.

One JSON line a case, kept at once: a second call goes on where the first was stopped, and prints the table of all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

import sparseplan
from benchmarks.networks.fixed_sparsity import FIXED_CASES, FixedCase, measure_fixed
from sparseplan.kernels.documents import read_records, write_records
from sparseplan.kernels.errors import SparseplanError
from sparseplan.planner.schema import DtypePolicy
from sparseplan.planner.store import load_plan
from sparseplan.profiles.clock import clock_hz

NETWORKS = {
    "resnet56": ("zoo:resnet56", (64, 3, 32, 32)),
    "resnet18": ("zoo:resnet18", (1, 3, 224, 224)),
    "resnet50": ("zoo:resnet50", (1, 3, 224, 224)),
    "mobilenet_v2": ("zoo:mobilenet_v2", (1, 3, 224, 224)),
    "vit_small": ("zoo:vit_small", (1, 3, 224, 224)),
    "own_model": ("examples/own_model.py:build", (32, 3, 32, 32)),
}
"""SPEC, and the shape of a batch."""
SPEEDUPS = (1.3, 1.7, 2.5)
PATTERNS = ("unstructured", "block:16x1")
MET_FRAC = 0.98
GOAL = "measured >= 98 % of the target in >= 95 % of the feasible cases, never slower than dense"


class Result(BaseModel):
    """One case as it was measured; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    kind: Literal["target", "fixed"]
    goal_speedup: float
    status: str
    """Of the solver for the first plan, "infeasible" where even the fastest one missed; or of the case."""
    predicted_speedup: float | None
    speedup: float
    dense_s: float
    planned_s: float
    rounds: int
    duration_s: float
    clock_hz: float | None

    @property
    def is_met(self) -> bool:
        return self.speedup >= MET_FRAC * self.goal_speedup


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCase:
    """One network for one speedup."""

    network: str
    speedup: float
    dtype: DtypePolicy

    @property
    def name(self) -> str:
        return f"{self.network} {self.speedup:g}x {self.dtype}"


def main() -> int:
    options = _parse()
    try:
        return _run(options)
    except SparseplanError as error:
        print(f"benchmarks.networks: error: {error}", file=sys.stderr)
        return 2


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.networks.meet_targets", description=__doc__)
    parser.add_argument("--profile", type=Path, required=True, help="of this machine (sparseplan profile)")
    parser.add_argument("--out", type=Path, default=Path("runs/meet_targets"), help="folder of results")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=["resnet56"])
    parser.add_argument("--speedups", nargs="*", type=float, default=list(SPEEDUPS[:2]))
    parser.add_argument("--dtypes", nargs="*", choices=("float32", "any"), default=["float32"])
    parser.add_argument("--fixed", nargs="*", choices=FIXED_CASES, default=[], help="resnet50 at a given sparsity")
    parser.add_argument("--all", action="store_true", help="the whole table: hours")
    parser.add_argument("--rounds", type=int, default=3, help="of measuring and planning again")
    return parser.parse_args()


def _run(options: argparse.Namespace) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.jsonl"
    done = list(read_records(path, Result, kind="result")) if path.exists() else []
    cases = list(_cases(options))
    start = time.perf_counter()
    left = [case for case in cases if case.name not in {result.case for result in done}]
    for number, case in enumerate(left):
        spent = time.perf_counter() - start
        rest = f", about {spent / number * (len(left) - number) / 60:.0f} min left" if number else ""
        print(f"[{number + 1}/{len(left)}] {case.name}{rest}", flush=True)
        done.append(_measure_fixed(case) if isinstance(case, FixedCase) else _measure_target(case, options))
        write_records(path, done)
    print(_table([result for result in done if result.case in {case.name for case in cases}]))
    return 0


def _cases(options: argparse.Namespace) -> Iterator[TargetCase | FixedCase]:
    networks = NETWORKS if options.all else options.networks
    speedups = SPEEDUPS if options.all else options.speedups
    for network in networks:
        for dtype in ("float32", "any") if options.all else options.dtypes:
            for speedup in speedups:
                yield TargetCase(network=network, speedup=speedup, dtype=dtype)
    for name in FIXED_CASES if options.all else options.fixed:
        yield FIXED_CASES[name]


def _measure_target(case: TargetCase, options: argparse.Namespace) -> Result:
    start = time.perf_counter()
    spec, shape = NETWORKS[case.network]
    profile = options.out / f"{case.network}-{case.dtype}.profile.json"
    if not profile.exists():
        sparseplan.extend(options.profile, spec, input=shape, patterns=PATTERNS, dtype=case.dtype, out=profile)
    out = options.out / f"{case.name.replace(' ', '-')}.json"
    plan = sparseplan.plan(
        spec, shape, profile=profile, out=out, target_speedup=case.speedup, dtype=case.dtype, patterns=PATTERNS
    )
    report = sparseplan.tune(out, rounds=options.rounds)
    best = report.rounds[report.kept]
    totals = load_plan(out).totals
    return Result(
        case=case.name,
        kind="target",
        goal_speedup=case.speedup,
        status="infeasible" if report.outcome == "infeasible" else plan.solver.status,
        predicted_speedup=totals.dense_time_s.median / totals.planned_time_s.median,
        speedup=best.speedup,
        dense_s=best.measured_dense_s,
        planned_s=best.measured_planned_s,
        rounds=len(report.rounds),
        duration_s=time.perf_counter() - start,
        clock_hz=clock_hz(),
    )


def _measure_fixed(case: FixedCase) -> Result:
    start = time.perf_counter()
    dense_s, planned_s, swapped = measure_fixed(case)
    return Result(
        case=case.name,
        kind="fixed",
        goal_speedup=case.goal_speedup,
        status=f"{swapped} layers swapped",
        predicted_speedup=None,
        speedup=dense_s / planned_s,
        dense_s=dense_s,
        planned_s=planned_s,
        rounds=1,
        duration_s=time.perf_counter() - start,
        clock_hz=clock_hz(),
    )


def _table(results: list[Result]) -> str:
    lines = [f"{'case':<40}{'goal':>7}{'pred.':>8}{'meas.':>8}{'dense':>11}{'planned':>11}  status"]
    for each in results:
        predicted = "-" if each.predicted_speedup is None else f"{each.predicted_speedup:.2f}x"
        verdict = "met" if each.is_met else "MISSED" if each.status != "infeasible" else "reachable"
        lines.append(
            f"{each.case:<40}{each.goal_speedup:>6.2f}x{predicted:>8}{each.speedup:>7.2f}x"
            f"{each.dense_s * 1e3:>8.2f} ms{each.planned_s * 1e3:>8.2f} ms  {each.status}, {verdict}"
        )
    feasible = [each for each in results if each.kind == "target" and each.status not in ("infeasible", "not_worth_it")]
    if feasible:
        met = sum(each.is_met for each in feasible)
        slower = sum(each.speedup < 1.0 for each in results)
        lines.append(f"{met} of {len(feasible)} feasible targets met, {slower} slower than dense (goal: {GOAL})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
