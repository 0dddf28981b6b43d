"""Which single layers to ablate: some of every layer to set the scale, then those that decide the plan."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from ..kernels.progress import Progress
from .ablation import Ablation, Rise, WeightChoice

QUANTILES = (0.6, 0.9, 0.3)
"""Which of a pattern's sparsity levels are measured, one a round: high ones cost the most, so they come early."""
FOCUS_ROUNDS = 3
FOCUS_SHARE = 1.0
"""Focused measurements a round, as a share of the number of layers."""

Focus = Callable[[Mapping[WeightChoice, Rise]], Sequence[WeightChoice]]
"""From what is measured to the choices on which the plan depends most, those first."""


def spend_ablations(
    ablation: Ablation, choices: Sequence[WeightChoice], *, focus: Focus | None, budget_s: float, progress: Progress
) -> Mapping[WeightChoice, Rise]:
    """Measure single layers until the time is up or there is nothing more to learn.

    First one choice of every layer; then, round by round, the choices of the plan that the measurements so far lead
    to, and their rivals; at last further patterns and levels in turn.

    Parameters
    ----------
    budget_s : float
        Wall-clock time, seconds; no ablation is begun after it.
    """
    start = time.perf_counter()
    measured: dict[WeightChoice, Rise] = {}

    def measure(wanted: Iterator[WeightChoice]) -> None:
        for choice in wanted:
            spent_s = time.perf_counter() - start
            progress("ablations", min(spent_s, budget_s), budget_s)
            if spent_s >= budget_s:
                return
            measured[choice] = ablation.measure(choice)

    layers = len({choice.layer for choice in choices})
    planned = ablation_schedule(choices)
    measure(islice(planned, layers))
    for _ in range(0 if focus is None else FOCUS_ROUNDS):
        assert focus is not None
        if time.perf_counter() - start >= budget_s:
            break
        unknown = [choice for choice in focus(measured) if choice not in measured]
        if not unknown:
            break
        measure(islice(unknown, max(1, round(FOCUS_SHARE * layers))))
    measure(choice for choice in planned if choice not in measured)
    progress("ablations", budget_s, budget_s)
    return measured


def ablation_schedule(choices: Sequence[WeightChoice]) -> Iterator[WeightChoice]:
    """One choice a layer and round, patterns and levels in turn."""
    by_layer: dict[str, dict[str, list[WeightChoice]]] = defaultdict(lambda: defaultdict(list))
    for choice in sorted(choices):
        by_layer[choice.layer][choice.pattern].append(choice)
    seen: set[WeightChoice] = set()
    for turn, quantile in enumerate(QUANTILES):
        for number, patterns in enumerate(by_layer.values()):
            levels = list(patterns.values())[(number + turn) % len(patterns)]
            choice = levels[round(quantile * (len(levels) - 1))]
            if choice not in seen:
                seen.add(choice)
                yield choice
