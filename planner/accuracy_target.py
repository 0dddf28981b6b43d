"""A limit on the accuracy that is lost before training: measured on the network with all planned zeros at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from ..kernels.progress import Progress
from .ablation import PrunedWeight
from .calibration import Calibration, accuracy_frac, label
from .carry_zeros import Stitcher, stitching
from .eval_mode import evaluating
from .knapsack import Solution
from .network_time import Picked
from .targets import SEARCH_TIME_LIMIT_S, Decision, Question, decide, dense_decision, met_report, solve_question

BISECTIONS = 8
"""Of the logarithm of the speedup; each halves the range, so the last is within 0.4 % of it."""


def decide_by_accuracy(
    model: nn.Module,
    question: Question,
    *,
    refitted: PrunedWeight | None,
    calibration: Calibration,
    progress: Progress,
) -> Decision:
    """The least loss at the targets that is within the accuracy drop; without other targets the fastest that is.

    Bisection over the target speedup; each plan's pruned weights are put into the model all at once and its accuracy
    is measured on the calibration data. Training comes after, so this bounds the drop from above. Without labels the
    drop is that of the agreement with the dense network.
    """
    target = question.target
    points = target.max_accuracy_drop_points
    assert points is not None
    with evaluating(model):
        data = label(model, calibration)
        dense_frac = accuracy_frac(model, data)

        stitcher = Stitcher(model, question.network.widths.groups, refitted)

        def drop_points(picked: Picked) -> float:
            with stitcher.carrying(stitching(question.network, picked)):
                return 100.0 * (dense_frac - accuracy_frac(model, data))

        if target.given_time_or_size:
            return _check(decide(question), drop_points, points)
        return _search(question, drop_points, points, progress)


def _check(found: Decision, drop_points: Callable[[Picked], float], points: float) -> Decision:
    """A plan for other targets: is it accurate enough?"""
    if found.report.status not in ("optimal", "time_limit"):
        return found
    drop = drop_points(found.picked)
    text = f"the pruned, untrained network loses {drop:.2f} points on the calibration data, allowed are {points:g}"
    if drop <= points:
        return replace(found, report=found.report.model_copy(update={"message": f"{found.report.message}; {text}"}))
    message = (
        f"the targets cannot be met together: at the others, {text}; ask for less speed, or allow a larger "
        "drop and let training win it back"
    )
    return replace(found, report=found.report.model_copy(update={"status": "infeasible", "message": message}))


def _search(question: Question, drop_points: Callable[[Picked], float], points: float, progress: Progress) -> Decision:
    network = question.network
    quickest = decide(question.at_speedup(1.0))
    best = quickest.best_reachable_speedup
    if quickest.report.status == "not_worth_it":
        return quickest
    found: tuple[Solution, float] | None = None
    low, high = 1.0, best
    for step in range(BISECTIONS):
        progress("accuracy search", step, BISECTIONS)
        # The fastest of all comes first: where it is accurate enough, no search is needed.
        speedup = high if step == 0 else math.sqrt(low * high)
        solution = solve_question(question.at_speedup(speedup), time_limit_s=SEARCH_TIME_LIMIT_S)
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
        return dense_decision(network, message, best, duration_s=quickest.report.time_s)
    solution, drop = found
    more = f"; the pruned, untrained network loses {drop:.2f} of the {points:g} points allowed on the calibration data"
    assert solution.chosen is not None
    return Decision(
        picked=network.picked(solution.chosen),
        report=met_report(question, solution, more),
        best_reachable_speedup=best,
    )
