"""How long the solver takes: networks of known shape with synthetic times and losses, and those of the zoo.

    .venv/bin/python -m benchmarks.solver --case resnet50-patterns
    .venv/bin/python -m benchmarks.solver --network resnet50 --speedup 1.7

Networks of the zoo are asked with the times of a reference profile (`solver_real`), with and without shared widths. Of
synthetic ones the time of a layer is flop over speed, rounded up to whole registers of 16 channels; kernels break even
at different densities, and losses rise with the sparsity as powers. The rule by which options are dropped beforehand is
the planner's (`planner.candidates`).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np

from sparseplan.planner.candidates import LEAST_GAIN_FRAC
from sparseplan.planner.knapsack import Knapsack, Link
from sparseplan.planner.network_time import sure_speedup, total_time
from sparseplan.planner.relax import solve_by_relaxation
from sparseplan.planner.solve import fastest, solve_knapsack
from sparseplan.planner.targets import decide
from sparseplan.planner.width_levels import staircase

from .solver_real import SHAPES, real_question

SPARSITIES = np.linspace(0.25, 0.98, 40)
FLOP_PER_S = 1e11
STEP = 16
"""Channels of a register: widths between two steps take as long as the next one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Layers as (input group, output group, pixels x kernel positions); a group of -1 is fixed."""

    widths: tuple[int, ...]
    layers: tuple[tuple[int, int, float], ...]
    patterns: int
    kernels: int
    most_levels: int


def resnet50(*, coupled: bool, patterns: int, kernels: int, most_levels: int) -> Case:
    widths: list[int] = [64]
    layers: list[tuple[int, int, float]] = [(-1, 0, 112 * 112 * 49 * 3 / 64)]
    stage, pixels = 0, 56 * 56
    for blocks, inner in ((3, 64), (4, 128), (6, 256), (3, 512)):
        before = stage
        widths.append(4 * inner)
        stage = len(widths) - 1
        for block in range(blocks):
            widths += [inner, inner]
            first, second = len(widths) - 2, len(widths) - 1
            source = before if block == 0 else stage
            layers += [(source, first, pixels), (first, second, 9 * pixels), (second, stage, pixels)]
            if block == 0:
                layers.append((before, stage, pixels))
        pixels //= 4
    layers.append((stage, -1, 1.0))
    return Case(
        widths=tuple(widths), layers=tuple(layers), patterns=patterns, kernels=kernels,
        most_levels=most_levels if coupled else 1,
    )  # fmt: skip


def deep(layers: int) -> Case:
    """Residual blocks of two layers; the stage changes every 25 blocks."""
    widths: list[int] = []
    found: list[tuple[int, int, float]] = []
    for block in range(layers // 2):
        if block % 25 == 0:
            widths.append(256)
            stage = len(widths) - 1
        widths.append(128)
        found += [(stage, len(widths) - 1, 9 * 196.0), (len(widths) - 1, stage, 9 * 196.0)]
    return Case(widths=tuple(widths), layers=tuple(found), patterns=9, kernels=3, most_levels=8)


CASES = {
    "resnet50-patterns": resnet50(coupled=False, patterns=11, kernels=4, most_levels=1),
    "resnet50-widths": resnet50(coupled=True, patterns=0, kernels=1, most_levels=40),
    "resnet50-both": resnet50(coupled=True, patterns=9, kernels=3, most_levels=8),
    "deep-500": deep(500),
}


def knapsack_of(case: Case, *, seed: int) -> tuple[Knapsack, int]:
    """The knapsack after dominated options are gone, and how many options there were before."""
    random = np.random.default_rng(seed)
    groups = [_levels(width, case.most_levels) for width in case.widths]
    layer, source, median_s, spread_s, loss = ([] for _ in range(5))
    links, asked = [], 0
    for number, (first, second, positions) in enumerate(case.layers):
        rows, columns = (
            groups[group] if group >= 0 else np.array([64 if group < 0 else 0]) for group in (first, second)
        )
        states = np.stack(np.meshgrid(np.arange(len(rows)), np.arange(len(columns)), indexing="ij"), -1).reshape(-1, 2)
        dense_s = 2.0 * positions * rows[states[:, 0]] * columns[states[:, 1]] / FLOP_PER_S + 5e-6
        dense_s *= random.uniform(0.9, 1.1)
        weights = random.uniform(0.2, 2.0)
        kept = [(np.arange(len(states)), np.zeros(len(states), dtype=int), dense_s, np.zeros(len(states)))]
        if case.patterns:
            kept += _sparse(case, states, dense_s, weights, random)
            asked += len(states) * case.patterns * len(SPARSITIES) * case.kernels
        asked += len(states)
        state = np.concatenate([each[0] for each in kept])
        count = len(state)
        layer.append(np.full(count, number))
        source.append(np.concatenate([each[1] for each in kept]))
        median_s.append(np.concatenate([each[2] for each in kept]))
        spread_s.append(0.08 * median_s[-1])
        loss.append(np.concatenate([each[3] for each in kept]))
        for axis, group in enumerate((first, second)):
            if group >= 0 and len(groups[group]) > 1:
                node = len(case.layers) + group
                links.append(
                    Link(layer=number, node=node, asks=states[state, axis], answers=np.arange(len(groups[group])))
                )
    for group, levels in enumerate(groups):
        gone = 1.0 - levels / levels[-1]
        layer.append(np.full(len(levels), len(case.layers) + group))
        source.append(np.zeros(len(levels), dtype=int))
        median_s.append(1e-6 * levels / levels[-1])
        spread_s.append(np.zeros(len(levels)))
        loss.append(random.uniform(0.5, 3.0) * gone ** random.uniform(1.5, 3.0))
    arrays = [np.concatenate(each) for each in (layer, source, median_s, spread_s, loss)]
    return Knapsack(
        layer=arrays[0], source=arrays[1], median_s=arrays[2], spread_s=arrays[3], loss=arrays[4],
        fixed_s=1e-4, base_spread_s=np.zeros(int(arrays[1].max()) + 1), links=tuple(links),
    ), asked  # fmt: skip


def _levels(width: int, most: int) -> np.ndarray:
    counts = range(1, width + 1)
    times_s = [float(-(-count // STEP)) for count in counts]
    return np.array(staircase(counts, times_s, most=most) if most > 1 else (width,))


def _sparse(
    case: Case, states: np.ndarray, dense_s: np.ndarray, weights: float, random: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Options that skip, those gone that are dominated in their state."""
    losses = np.concatenate(
        [weights * random.uniform(0.3, 2.0) * SPARSITIES ** random.uniform(2.0, 5.0) for _ in range(case.patterns)]
    )
    shares, sources = [], []
    for pattern in range(case.patterns):
        # Of several kernels for the same zeros the fastest stands for all.
        speeds = random.uniform(0.2, 0.9, case.kernels)
        shares.append((1.0 - SPARSITIES) / speeds.max() + random.uniform(0.01, 0.05))
        sources.append(np.full(len(SPARSITIES), 1 + pattern * case.kernels + int(speeds.argmax())))
    order = np.argsort(losses, kind="stable")
    share, source = np.concatenate(shares)[order], np.concatenate(sources)[order]
    times_s = dense_s[:, None] * share[None, :] + 3e-6
    limit_s = np.minimum.accumulate(np.concatenate([dense_s[:, None] / 1.08, times_s], axis=1), axis=1)[:, :-1]
    row, column = np.nonzero(times_s < (1.0 - LEAST_GAIN_FRAC) * limit_s)
    return [(row, source[column], times_s[row, column], losses[order][column])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="one or more; all by default")
    parser.add_argument("--network", choices=SHAPES, action="append", help="of the zoo, instead of cases")
    parser.add_argument("--speedup", type=float, action="append", help="one or more; 2 by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    speedups = options.speedup or [2.0]
    for name in options.network or ():
        for coupled in (False, True):
            _solve_network(name, speedups, coupled=coupled)
    for name in options.case or (() if options.network else CASES):
        for speedup in speedups:
            _solve_case(name, speedup, seed=options.seed)


def _solve_network(name: str, speedups: list[float], *, coupled: bool) -> None:
    real = real_question(name, coupled=coupled)
    network = real.question.network
    for speedup in speedups:
        decision = decide(real.question.at_speedup(speedup))
        dense, planned = (total_time(network, picked).median for picked in (network.dense, decision.picked))
        record = {
            "network": name, "shared_widths": coupled, "target": speedup,
            "options_left": sum(len(layer.options) for layer in network.layers),
            "predict_s": round(real.predict_s, 2), "status": decision.report.status,
            "time_s": round(decision.report.time_s, 3), "gap_frac": decision.report.gap_frac,
            "sure_speedup": sure_speedup(network, decision.picked), "median_speedup": dense / planned,
            "best_speedup": decision.best_reachable_speedup,
        }  # fmt: skip
        print(json.dumps(record), flush=True)


def _solve_case(name: str, speedup: float, *, seed: int) -> None:
    knapsack, asked = knapsack_of(CASES[name], seed=seed)
    dense = _dense(knapsack, len(CASES[name].layers))
    start = time.perf_counter()
    quickest = fastest(knapsack)
    fastest_s = time.perf_counter() - start
    budget_s = knapsack.upper_s(dense) / speedup
    for solve in (solve_knapsack, solve_by_relaxation):
        solution = solve(knapsack, budget_s=budget_s)
        record = {
            "case": name, "solver": solve.__name__, "choices": knapsack.layers, "options_asked": asked,
            "options_left": len(knapsack.layer), "links": len(knapsack.links), "status": solution.status,
            "time_s": round(solution.duration_s, 3), "gap_frac": solution.gap_frac, "loss": solution.objective,
            "fastest_time_s": round(fastest_s, 3),
            "best_speedup": knapsack.upper_s(dense) / (quickest.upper_s or 1.0),
        }  # fmt: skip
        print(json.dumps(record), flush=True)


def _dense(knapsack: Knapsack, layers: int) -> np.ndarray:
    """Everything whole: of each layer and group the last option without loss."""
    chosen = []
    for layer in range(knapsack.layers):
        own = knapsack.options_of(layer)
        free = own[knapsack.loss[own] == 0.0]
        chosen.append(free[np.argmax(knapsack.median_s[free])] if layer < layers else own[-1])
    return np.array(chosen)


if __name__ == "__main__":
    main()
