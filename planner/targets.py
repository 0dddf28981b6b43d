"""Meet the targets: several limits on time, one on bytes and one on accuracy, in any combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .candidates import Option
from .knapsack import Knapsack, Solution
from .network_time import Network, Picked, knapsack_of, sure_speedup, total_time
from .options import NO_KERNEL
from .schema import SolverReport, Target
from .size_limit import Floats, solve_within_bytes
from .solve import fastest, solve_knapsack
from .stored_bytes import weight_file_bytes

TIGHTENING = (0.99, 0.98, 0.96, 0.93, 0.9)
"""Of a time budget, where a plan that just meets one target misses another one by its errors alone."""
SEARCH_TIME_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is chosen for each layer, and how that came about."""

    picked: Picked
    report: SolverReport
    best_reachable_speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the solver is asked.

    Attributes
    ----------
    batch : int
        Images of one forward pass, for throughput.
    other_bytes : float
        Of the model, beside the weights of its planned layers.
    """

    network: Network
    target: Target
    batch: int
    other_bytes: float

    def like(self, other: Question) -> Question:
        """This network, asked what another one was asked."""
        return replace(self, target=other.target)

    def at_speedup(self, speedup: float) -> Question:
        """The same network, asked for a speedup alone."""
        return replace(self, target=Target(speedup=speedup))


def decide(question: Question) -> Decision:
    """Least loss within the limits on time and bytes; the fastest assignment where they cannot be met."""
    network, target = question.network, question.target
    quickest = fastest(knapsack_of(network, speedup=target.speedup))
    assert quickest.chosen is not None
    fastest_picked = network.picked(quickest.chosen)
    best = sure_speedup(network, fastest_picked)
    solution = solve_question(question)
    if solution.chosen is not None:
        picked = network.picked(solution.chosen)
        return Decision(picked=picked, report=met_report(question, solution), best_reachable_speedup=best)
    if not network.has_choice:
        return _nothing_faster(network, quickest)
    report = SolverReport(
        status="infeasible",
        message=_why_infeasible(question, quickest, fastest_picked, best),
        objective=None,
        bound=None,
        gap_frac=None,
        time_s=solution.duration_s,
    )
    return Decision(picked=fastest_picked, report=report, best_reachable_speedup=best)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """A knapsack whose whole must need at most so much time."""

    knapsack: Knapsack
    budget_s: float

    def holds(self, chosen: Sequence[int]) -> bool:
        return self.knapsack.upper_s(np.array(chosen)) <= self.budget_s * (1.0 + 2e-6)

    def solve(self, loss: Floats, share: float, time_limit_s: float) -> Solution:
        return solve_knapsack(
            replace(self.knapsack, loss=loss), budget_s=share * self.budget_s, time_limit_s=time_limit_s
        )


def solve_question(question: Question, *, factors: Floats | None = None, time_limit_s: float = 30.0) -> Solution:
    """The solver's answer alone; `chosen` is None where the limits cannot be met.

    Parameters
    ----------
    factors : array, optional
        [layers + width groups], on the losses of each.
    """
    limits = _limits(question)
    loss = limits[0].knapsack.loss
    if factors is not None:
        others = np.ones(limits[0].knapsack.layers - len(factors))
        loss = loss * np.concatenate([factors, others])[limits[0].knapsack.layer]

    def solve(losses: Floats) -> Solution:
        return _solve_all(limits, losses, time_limit_s)

    if question.target.model_bytes is None:
        return _with_lossless(question, limits, solve(loss))
    own = [option_bytes(option) for layer in question.network.layers for option in layer.options]
    size = np.zeros(len(loss))
    size[: len(own)] = own
    found = solve_within_bytes(loss, size, solve, limit=question.target.model_bytes - question.other_bytes)
    return _with_lossless(question, limits, found)


def _with_lossless(question: Question, limits: Sequence[_Limit], found: Solution) -> Solution:
    """What is left dense takes the faster dense kernel even where the targets are met without: it costs nothing."""
    if found.chosen is None:
        return found
    swaps = question.network.lossless
    chosen = tuple(swaps.get(option, option) for option in found.chosen)
    if chosen == found.chosen or not all(limit.holds(chosen) for limit in limits):
        return found
    return replace(found, chosen=chosen, upper_s=limits[0].knapsack.upper_s(np.array(chosen)))


def _limits(question: Question) -> list[_Limit]:
    network, target = question.network, question.target
    dense_s = total_time(network, network.dense).median
    found = []
    # Without a limit on time, whatever is chosen must at least not be slower than dense.
    speedup = 1.0 if target.speedup is None and latency_limit_s(question) is None else target.speedup
    if speedup is not None:
        found.append(_Limit(knapsack=knapsack_of(network, speedup=speedup), budget_s=dense_s / speedup))
    latency_s = latency_limit_s(question)
    if latency_s is not None:
        found.append(_Limit(knapsack=knapsack_of(network, speedup=None), budget_s=latency_s))
    return sorted(found, key=lambda limit: limit.budget_s)


def latency_limit_s(question: Question) -> float | None:
    """Of one batch, by the latency and the throughput that are asked for."""
    target = question.target
    found = [] if target.latency_s is None else [target.latency_s]
    if target.throughput_per_s is not None:
        found.append(question.batch / target.throughput_per_s)
    return min(found, default=None)


def _solve_all(limits: Sequence[_Limit], loss: Floats, time_limit_s: float) -> Solution:
    """Mostly one limit implies the others; else the tightest is tightened until they hold."""
    answer = limits[0].solve(loss, 1.0, time_limit_s)
    if answer.chosen is None:
        return answer
    for limit in limits:
        answer = limit.solve(loss, 1.0, time_limit_s) if limit is not limits[0] else answer
        if answer.chosen is None or all(other.holds(answer.chosen) for other in limits):
            return answer
    for share in TIGHTENING:
        answer = limits[0].solve(loss, share, time_limit_s)
        if answer.chosen is None or all(other.holds(answer.chosen) for other in limits):
            break
    return answer


def option_bytes(option: Option) -> float:
    """Of a layer's weight; one that went with its branch takes none."""
    return 0.0 if option.candidate.kernel == NO_KERNEL else weight_file_bytes(option.timed.problem)


def model_file_bytes(question: Question, picked: Picked) -> float:
    """Of the whole model; biases and norms count at full width."""
    return question.other_bytes + sum(option_bytes(option) for option in picked.layers)


def floor_s(network: Network) -> float:
    """Time that no sparsity takes away: what lies between the layers, and calling and converting for each layer."""
    return network.rest.fixed_s.median + sum(
        layer.layer.calls * min(option.timed.around_s for option in layer.options) for layer in network.layers
    )


def _why_infeasible(question: Question, quickest: Solution, picked: Picked, best: float) -> str:
    network, target = question.network, question.target
    dense_s, planned_s = total_time(network, network.dense).median, total_time(network, picked).median
    latency_s = latency_limit_s(question)
    assert quickest.upper_s is not None
    reasons = []
    if target.speedup is not None and target.speedup > best:
        reasons.append(
            f"target speedup {target.speedup:g} cannot be met; best predicted {best:.2f}x "
            f"(the upper quantile of the time; {dense_s / planned_s:.2f}x by medians)"
        )
    if latency_s is not None and latency_s < total_time(network, picked).high:
        reached_s = total_time(network, picked).high
        asked = f"target latency {latency_s * 1e3:.4g} ms"
        if target.latency_s is None or latency_s < target.latency_s:
            asked = f"target throughput {target.throughput_per_s:g} a second ({latency_s * 1e3:.4g} ms a batch)"
        reasons.append(
            f"{asked} cannot be met; best predicted {reached_s * 1e3:.4g} ms "
            f"(upper quantile; {best:.2f}x against dense)"
        )
    if target.model_bytes is not None:
        least = question.other_bytes + sum(min(map(option_bytes, layer.options)) for layer in network.layers)
        if least > target.model_bytes:
            reasons.append(
                f"target size {target.model_bytes / 1e6:.4g} MB cannot be met by zeros that cost no time; "
                f"least {least / 1e6:.4g} MB"
            )
    if not reasons:
        reasons.append(
            f"no plan meets all targets together; the fastest takes {quickest.upper_s * 1e3:.4g} ms at worst"
        )
    budget_s = min(limit.budget_s for limit in _limits(question))
    if budget_s < floor_s(network):
        reasons.append(
            f"it lies below the floor of {floor_s(network) * 1e3:.4g} ms that operations between the layers, "
            "conversions and calls of kernels take whatever is pruned; a larger batch would help, zeros cannot"
        )
    return "; ".join(reasons)


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
    return dense_decision(network, message, 1.0, duration_s=quickest.duration_s)


def dense_decision(network: Network, message: str, best: float, *, duration_s: float) -> Decision:
    """Nothing is pruned, and why."""
    report = SolverReport(
        status="not_worth_it", message=message, objective=0.0, bound=0.0, gap_frac=0.0, time_s=duration_s
    )
    return Decision(picked=network.dense, report=report, best_reachable_speedup=best)


def met_report(question: Question, solution: Solution, more: str = "") -> SolverReport:
    """Of a solution that meets the limits."""
    network = question.network
    assert solution.chosen is not None
    picked = network.picked(solution.chosen)
    dense, planned = total_time(network, network.dense), total_time(network, picked)
    size = ""
    if question.target.model_bytes is not None:
        size = f", {model_file_bytes(question, picked) / 1e6:.4g} MB"
    return SolverReport(
        status=solution.status,
        message=(
            f"{solution.message}: {sure_speedup(network, picked):.2f}x at the upper quantile of the time, "
            f"{dense.median / planned.median:.2f}x by medians{size}{more}"
        ),
        objective=solution.objective,
        bound=solution.bound,
        gap_frac=solution.gap_frac,
        time_s=solution.duration_s,
    )
