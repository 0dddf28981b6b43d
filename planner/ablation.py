"""Measure what it costs to prune one layer alone."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.groups import magnitude_mask
from ..kernels.pattern import parse_pattern
from ..kernels.progress import Progress
from .calibration import Labelled, sample_losses
from .layer_weights import layer_weight, masked

QUANTILES = (0.6, 0.9, 0.3)
"""Which of a pattern's sparsity levels are measured, one a round: high ones cost the most, so they come early."""
LEAST_IMAGES = 64
LEAST_LOSS = 1e-5
"""nat; a rise below this is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WeightChoice:
    """Zeros in one layer: a pattern at a sparsity."""

    layer: str
    pattern: str
    sparsity: float


def choice_mask(model: nn.Module, choice: WeightChoice) -> Tensor:
    """The mask [K, C, R, S] that training to this choice starts from."""
    return magnitude_mask(layer_weight(model, choice.layer), parse_pattern(choice.pattern), choice.sparsity)


def ablate(
    model: nn.Module, choices: Sequence[WeightChoice], *, data: Labelled, budget_s: float, progress: Progress
) -> Mapping[WeightChoice, float]:
    """Rise of the calibration loss when one layer alone is pruned, for some choices of every layer.

    One choice a layer and round, patterns and levels in turn, until the time is up.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    budget_s : float
        Wall-clock time, seconds; no ablation is begun after it.

    Returns
    -------
    mapping
        Positive, in nat: a rise that is lost in the noise counts as its standard error.
    """
    deadline = time.perf_counter() + budget_s
    schedule = list(_schedule(choices))
    data = _affordable(model, data, len(schedule), budget_s)
    dense = sample_losses(model, data)
    measured: dict[WeightChoice, float] = {}
    for done, choice in enumerate(schedule):
        if time.perf_counter() >= deadline:
            break
        progress("ablations", done, len(schedule))
        with masked(model, {choice.layer: choice_mask(model, choice)}):
            rise = (sample_losses(model, data) - dense).double()
        noise = float(rise.std()) / math.sqrt(len(rise)) if len(rise) > 1 else 0.0
        measured[choice] = max(float(rise.mean()), noise, LEAST_LOSS)
    progress("ablations", len(schedule), len(schedule))
    return measured


def _schedule(choices: Sequence[WeightChoice]) -> Iterator[WeightChoice]:
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


def _affordable(model: nn.Module, data: Labelled, ablations: int, budget_s: float) -> Labelled:
    """As many images, spread over all, as let the first two rounds end within the budget."""
    trial = Labelled(images=data.images[:LEAST_IMAGES], labels=data.labels[:LEAST_IMAGES])
    start = time.perf_counter()
    sample_losses(model, trial)
    image_s = (time.perf_counter() - start) / len(trial.images)
    wanted = max(2 * ablations / len(QUANTILES), 1.0)
    count = min(len(data.images), max(int(budget_s / (wanted * image_s)), LEAST_IMAGES))
    spread = torch.linspace(0, len(data.images) - 1, count).round().long()
    return Labelled(images=data.images[spread], labels=data.labels[spread])
