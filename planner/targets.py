"""Meet a target: by one solution of the knapsack, or by bisection over speedups with the accuracy measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from ..kernels.pattern import DENSE, parse_pattern
from ..kernels.progress import Progress
from .calibration import Calibration, accuracy_frac, label
from .eval_mode import evaluating
from .knapsack import Solution
from .layer_weights import layer_weight, masked
from .narrow import left_of, mask_of_left, strongest_units
from .network_time import Network, Picked, knapsack_of, sure_speedup, total_time
from .options import NO_KERNEL
from .schema import SolverReport, Target
from .solve import fastest, solve_knapsack
from .width_loss import narrowed_for_a_while

BISECTIONS = 8
"""Of the logarithm of the speedup; each halves the range, so the last is within 0.4 % of it."""
SEARCH_TIME_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is chosen for each layer, and how that came about."""

    picked: Picked
    report: SolverReport
    best_reachable_speedup: float


def decide(network: Network, target: Target) -> Decision:
    """Least loss at a target speedup or latency; the fastest assignment where the target cannot be met."""
    knapsack = knapsack_of(network, speedup=target.speedup)
    quickest = fastest(knapsack)
    assert quickest.chosen is not None
    assert quickest.upper_s is not None
    fastest_picked = network.picked(quickest.chosen)
    best = sure_speedup(network, fastest_picked)
    dense_s = total_time(network, network.dense).median
    budget_s = dense_s / target.speedup if target.speedup is not None else target.latency_s
    assert budget_s is not None
    solution = solve_knapsack(knapsack, budget_s=budget_s)
    if solution.chosen is not None:
        picked = network.picked(solution.chosen)
        report = _report(solution, _met_message(network, picked, solution))
        return Decision(picked=picked, report=report, best_reachable_speedup=best)
    if not network.has_choice:
        return _nothing_faster(network, quickest)
    median_x = dense_s / total_time(network, fastest_picked).median
    if target.speedup is not None:
        message = (
            f"target speedup {target.speedup:g} cannot be met; best predicted {best:.2f}x "
            f"(the upper quantile of the time; {median_x:.2f}x by medians)"
        )
    else:
        message = (
            f"target latency {budget_s * 1e3:.4g} ms cannot be met; best predicted {quickest.upper_s * 1e3:.4g} ms "
            f"(upper quantile; {best:.2f}x against dense)"
        )
    report = SolverReport(
        status="infeasible", message=message, objective=None, bound=None, gap_frac=None, time_s=solution.duration_s
    )
    return Decision(picked=fastest_picked, report=report, best_reachable_speedup=best)


def decide_by_accuracy(
    model: nn.Module, network: Network, *, points: float, calibration: Calibration, progress: Progress
) -> Decision:
    """The fastest plan whose masked network, before any training, loses at most `points` of accuracy.

    Bisection over the target speedup; each plan's masks are put into the model all at once and its accuracy is measured
    on the calibration data. Training comes after, so this bounds the drop from above. Without labels the drop is that
    of the agreement with the dense network.
    """
    knapsack = knapsack_of(network, speedup=1.0)
    quickest = fastest(knapsack)
    assert quickest.chosen is not None
    best = sure_speedup(network, network.picked(quickest.chosen))
    if not network.has_choice:
        return _nothing_faster(network, quickest)
    dense_s = total_time(network, network.dense).median
    with evaluating(model):
        data = label(model, calibration)
        dense_frac = accuracy_frac(model, data)

        def drop_points(picked: Picked) -> float:
            with _carrying(model, network, picked):
                return 100.0 * (dense_frac - accuracy_frac(model, data))

        found: tuple[Solution, float] | None = None
        low, high = 1.0, best
        for step in range(BISECTIONS):
            progress("accuracy search", step, BISECTIONS)
            # The fastest of all comes first: where it is accurate enough, no search is needed.
            speedup = high if step == 0 else math.sqrt(low * high)
            solution = solve_knapsack(
                knapsack_of(network, speedup=speedup), budget_s=dense_s / speedup, time_limit_s=SEARCH_TIME_LIMIT_S
            )
            if solution.chosen is not None:
                drop = drop_points(network.picked(solution.chosen))
                if drop <= points:
                    found, low = (solution, drop), speedup
                    if step == 0:
                        break
                    continue
            high = speedup
        progress("accuracy search", BISECTIONS, BISECTIONS)
    if found is None or found[0].chosen is None or network.picked(found[0].chosen) == network.dense:
        message = (
            f"every faster plan that was tried loses more than {points:g} points of calibration accuracy before "
            "training; allow more, or give a target speedup and let training win the accuracy back"
        )
        return _dense_decision(network, message, best, duration_s=quickest.duration_s)
    solution, drop = found
    assert solution.chosen is not None
    picked = network.picked(solution.chosen)
    message = (
        f"{_met_message(network, picked, solution)}; the masked, untrained network loses {drop:.2f} of the "
        f"{points:g} points allowed on the calibration data"
    )
    return Decision(picked=picked, report=_report(solution, message), best_reachable_speedup=best)


@contextmanager
def _carrying(model: nn.Module, network: Network, picked: Picked) -> Iterator[None]:
    """The model with the zeros of a decision for a while: widths first, then what is skipped in what is left."""
    narrowed = [
        (each.group, strongest_units(model, each.group, kept))
        for each, kept in zip(network.widths.groups, picked.kept, strict=True)
        if kept < each.group.units
    ]
    masks = {}
    for layer, option in zip(network.layers, picked.layers, strict=True):
        candidate = option.candidate
        if option is not layer.dense and candidate.kernel != NO_KERNEL and candidate.pattern != DENSE.text:
            name = layer.layer.name
            left = left_of(model, name, narrowed)
            pattern = parse_pattern(candidate.pattern)
            masks[name] = mask_of_left(layer_weight(model, name), left, pattern, candidate.sparsity)
    with narrowed_for_a_while(model, narrowed), masked(model, masks):
        yield


def _nothing_faster(network: Network, quickest: Solution) -> Decision:
    hopeful = any(
        option.candidate.time_s.median < layer.dense.candidate.time_s.median
        for layer in network.layers
        for option in layer.losers
    )
    message = "no sparse kernel is predicted to beat the dense one in any layer; leave the network dense"
    if hopeful:
        message = (
            "no sparse kernel surely beats the dense one in any layer, though some do by medians: the predictions are "
            "too uncertain; profile with a larger budget on an idle machine, or leave the network dense"
        )
    return _dense_decision(network, message, 1.0, duration_s=quickest.duration_s)


def _dense_decision(network: Network, message: str, best: float, *, duration_s: float) -> Decision:
    report = SolverReport(
        status="not_worth_it", message=message, objective=0.0, bound=0.0, gap_frac=0.0, time_s=duration_s
    )
    return Decision(picked=network.dense, report=report, best_reachable_speedup=best)


def _met_message(network: Network, picked: Picked, solution: Solution) -> str:
    dense, planned = total_time(network, network.dense), total_time(network, picked)
    return (
        f"{solution.message}: {sure_speedup(network, picked):.2f}x at the upper quantile of the time, "
        f"{dense.median / planned.median:.2f}x by medians"
    )


def _report(solution: Solution, message: str) -> SolverReport:
    return SolverReport(
        status=solution.status,
        message=message,
        objective=solution.objective,
        bound=solution.bound,
        gap_frac=solution.gap_frac,
        time_s=solution.duration_s,
    )
