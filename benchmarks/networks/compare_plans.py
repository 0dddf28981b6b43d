"""Compare plans: the loss of a network pruned in one shot, without training, at equal time, predicted and measured.

    python -m benchmarks.networks.compare_plans --model zoo:resnet56 --weights W --data cifar10:DIR --input 64,3,32,32 \
        --profile machine.json --patterns unstructured --speedups 1.3,1.7,2.5 --out runs/compare

All ways choose from the same database of pruned layers and the same predicted times; see `choose_rivals`. Each choice
is then compiled and measured, in alternation with all others at its target; `compare_times` reads off what each way
loses at one and the same measured time.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sparseplan.commands.plan import CALIBRATION_IMAGES, calibration_of
from sparseplan.data_spec import load_data
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.documents import sha256_of
from sparseplan.kernels.keep_memory import keep_memory
from sparseplan.kernels.registry import REGISTRY
from sparseplan.model_spec import load_model
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.planner.calibration import Calibration, Labelled, accuracy_frac, label, sample_losses
from sparseplan.planner.candidates import join_loss, wanted_choices
from sparseplan.planner.capture import Captured, capture
from sparseplan.planner.carry_zeros import Stitcher, Stitching, stitching
from sparseplan.planner.focus import focus_choices
from sparseplan.planner.make_plan import for_threads, machinery_of
from sparseplan.planner.network_time import Network, Picked, total_time
from sparseplan.planner.options import LayerOptions, TimedNetwork
from sparseplan.planner.pruned_layers import prune_layers
from sparseplan.planner.pruned_store import PrunedStore
from sparseplan.planner.request import PlanContext, PlanRequest
from sparseplan.planner.rest import RestTime, rest_time
from sparseplan.planner.schema import SolverReport, Target
from sparseplan.planner.search_scales import Draw, draw_factor, search_scales
from sparseplan.planner.sensitivity import Sensitivity, estimate_sensitivity
from sparseplan.planner.stitch import stitched_loss
from sparseplan.planner.targets import Decision, Question
from sparseplan.planner.time_options import time_options
from sparseplan.planner.write_plan import write_plan
from sparseplan.profiles.stopwatch import HOST
from sparseplan.profiles.store import load_profile
from sparseplan.progress_bar import ProgressBar
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.hosts import network_calls
from sparseplan.runtime.schema import Host
from sparseplan.trainer.store import load_weights

from .choose_rivals import (
    Floats,
    Race,
    choose_by_arithmetic,
    choose_by_magnitude,
    choose_uniform,
    draw_spdy,
    make_race,
    spdy_losses,
)
from .compare_times import at_equal_time
from .plot_comparison import plot_comparison

TEST_IMAGES = 2000
SECONDS_A_WAY = 1.5
"""Of timing, at each target."""
FOREVER_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What all ways have in common."""

    model: nn.Module
    pattern: str
    options: tuple[LayerOptions, ...]
    network: Network
    stitcher: Stitcher
    data: Labelled
    evaluations: int
    progress: ProgressBar
    example: Tensor
    captured: Captured
    context: PlanContext
    host: Host


def main() -> int:
    arguments = _arguments()
    torch.manual_seed(0)
    profile = load_profile(arguments.profile)
    model = load_model(arguments.model).eval()
    load_weights(model, arguments.weights)
    splits = load_data(arguments.data)
    calibration = calibration_of(splits, CALIBRATION_IMAGES)
    # In random order: data sets lie sorted by class, and the pruned networks take the statistics of each batch.
    some = torch.randperm(len(splits.test.images), generator=torch.Generator().manual_seed(0))[:TEST_IMAGES]
    test = Labelled(images=splits.normalise(splits.test.images[some]), labels=splits.test.labels[some])
    example = torch.randn(arguments.input)
    captured = for_threads(capture(model, example), profile.threads)
    performance = fit_performance_model(profile, REGISTRY)
    context = PlanContext(
        profile=profile,
        profile_path=str(arguments.profile.resolve()),
        profile_sha256=sha256_of(arguments.profile),
        performance_model=performance,
        machine=detect_machine(),
        registry=REGISTRY,
    )
    machinery = machinery_of(profile, performance, machine=context.machine, registry=REGISTRY)
    torch.set_num_threads(profile.threads)
    keep_memory()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for pattern in arguments.patterns:
        timed = time_options(captured.layers, [pattern], dtype_policy="float32", machinery=machinery)
        rest = rest_time(captured, timed.form.dtype, machinery)
        with ProgressBar() as bar, torch.no_grad():
            contest = _prepare(model, pattern, example, timed, rest, captured, context, calibration, arguments, bar)
            for speedup in arguments.speedups:
                for row in _run(contest, speedup, test):
                    rows.append({"model": arguments.model, "pattern": pattern, "target": speedup, **row})
                    pd.DataFrame(rows).to_csv(arguments.out / "plans.csv", index=False)
                    print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    table = pd.DataFrame(rows)
    plot_comparison(table, arguments.out / "plans.svg")
    compared = at_equal_time(table)
    compared.to_csv(arguments.out / "equal_time.csv", index=False)
    print(compared.round(4).to_string(index=False))
    return 0


def _prepare(
    model: nn.Module,
    pattern: str,
    example: Tensor,
    timed: TimedNetwork,
    rest: RestTime,
    captured: Captured,
    context: PlanContext,
    calibration: Calibration,
    arguments: argparse.Namespace,
    bar: ProgressBar,
) -> Contest:
    choices = wanted_choices(timed.layers)
    store = PrunedStore(arguments.out / "pruned")
    pruned = prune_layers(model, choices, calibration=calibration, store=store, progress=bar)

    def ask(found: Sensitivity) -> Question:
        return Question(
            network=Network(layers=join_loss(timed.layers, found), widths=timed.widths, width_loss=(), rest=rest),
            target=Target(speedup=arguments.speedups[len(arguments.speedups) // 2]),
            batch=arguments.input[0],
            other_bytes=0.0,
        )

    found = estimate_sensitivity(
        model,
        choices,
        layers=[layer.name for layer in captured.layers],
        calibration=calibration,
        pruned=pruned,
        focus=lambda known: focus_choices(ask(known)),
        budget_s=arguments.sensitivity_s,
        progress=bar,
    )
    return Contest(
        model=model,
        pattern=pattern,
        options=timed.layers,
        network=ask(found).network,
        stitcher=Stitcher(model, timed.widths.groups, pruned.weight),
        data=label(model, calibration),
        evaluations=arguments.evaluations,
        progress=bar,
        example=example,
        captured=captured,
        context=context,
        host=arguments.host,
    )


def _run(contest: Contest, speedup: float, test: Labelled) -> Iterator[Mapping[str, object]]:
    race = make_race(contest.network, speedup)
    own = np.array([option.candidate.loss_increase for layer in race.network.layers for option in layer.options])
    ways = {
        "dense": lambda: race.network.dense,
        "uniform": lambda: choose_uniform(race),
        "global magnitude": lambda: choose_by_magnitude(race, contest.model, contest.pattern),
        "flop-guided": lambda: choose_by_arithmetic(race),
        "SPDY": lambda: _search(contest, race, spdy_losses(race), draw_spdy),
        "ours, no search": lambda: race.solve(own),
        "ours": lambda: _search(contest, race, own, draw_factor),
    }
    chosen = {way: choose() for way, choose in ways.items()}
    measured_s = _measure(contest, {way: picked for way, picked in chosen.items() if picked is not None}, race)
    for way, picked in chosen.items():
        if picked is None:
            yield {"way": way, "time_s": np.nan}
            continue
        plan = stitching(race.network, picked)
        with contest.stitcher.carrying(plan):
            test_loss = float(sample_losses(contest.model, test).mean())
            test_accuracy = accuracy_frac(contest.model, test)
        yield {
            "way": way,
            "time_s": total_time(race.network, picked).median,
            "measured_s": measured_s[way],
            "dense_time_s": total_time(race.network, race.network.dense).median,
            "calibration_loss": stitched_loss(contest.model, plan, contest.stitcher, contest.data),
            "test_loss": test_loss,
            "test_accuracy_frac": test_accuracy,
            "pruned_layers": len(plan.choices),
        }


def _measure(contest: Contest, chosen: Mapping[str, Picked], race: Race) -> dict[str, float]:
    """Median time of each way's network, all in alternation, under one host."""
    question = Question(network=race.network, target=Target(speedup=race.speedup), batch=1, other_bytes=0.0)
    request = PlanRequest(model_spec="", example=contest.example, target=question.target, patterns=(contest.pattern,))
    report = SolverReport(status="optimal", message="", objective=None, bound=None, gap_frac=None, time_s=0.0)
    calls = []
    for number, picked in enumerate(chosen.values()):
        contest.progress("building networks", number, len(chosen))
        decision = Decision(picked=picked, report=report, best_reachable_speedup=race.speedup)
        plan = write_plan(question, decision, contest.captured, request, contest.context)
        with contest.stitcher.carrying(stitching(race.network, picked)):
            masked = copy.deepcopy(contest.model)
        network = compile_model(masked, plan, machine=contest.context.machine)
        calls.append(network_calls(network, contest.example, [contest.host], HOST)[contest.host])
    contest.progress("measuring networks", 0, 1)
    with HOST.settings():
        times = HOST.networks(calls, budget_s=SECONDS_A_WAY * len(calls))
    contest.progress("measuring networks", 1, 1)
    return {way: time.median for way, time in zip(chosen, times, strict=True)}


def _search(contest: Contest, race: Race, loss: Floats, draw: Draw) -> Picked | None:
    """The search of factors, with the same number of stitched networks for everyone."""
    names = [layer.layer.name for layer in race.network.layers]
    plans: dict[Stitching, Picked] = {}

    def solve(scale: Mapping[str, float]) -> list[Stitching] | None:
        factors = np.array([scale[name] for name in names])
        picked = race.solve(loss * factors[race.knapsack.layer])
        if picked is None:
            return None
        plan = stitching(race.network, picked)
        plans[plan] = picked
        return [plan]

    found = search_scales(
        names,
        solve=solve,
        stitched_loss=lambda plan: stitched_loss(contest.model, plan, contest.stitcher, contest.data),
        budget_s=FOREVER_S,
        most_evaluated=contest.evaluations,
        draw=draw,
        progress=contest.progress,
    )
    return None if found is None else plans[found.plans[0]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.networks.compare_plans", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--input", type=_numbers(int), required=True)
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--patterns", type=lambda text: text.split(","), default=["unstructured", "block:16x1"])
    parser.add_argument("--speedups", type=_numbers(float), default=[1.3, 1.7, 2.5])
    parser.add_argument("--sensitivity-s", type=float, default=60.0)
    parser.add_argument("--evaluations", type=int, default=100, help="stitched networks a search may measure")
    parser.add_argument("--host", choices=("compile", "channels_last", "eager"), default="compile", help="for times")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _numbers(kind: type) -> object:
    return lambda text: [kind(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
