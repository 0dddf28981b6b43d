"""Measure what it costs to prune one layer alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.groups import magnitude_mask
from ..kernels.lowrank import low_rank, ranks_for
from ..kernels.pattern import LOW_RANK, parse_pattern
from .calibration import Labelled, sample_losses
from .layer_weights import layer_weight, replaced

LEAST_IMAGES = 64
LEAST_LOSS = 1e-5
"""nat; a rise below this is rounding."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class WeightChoice:
    """Zeros in one layer: a pattern at a sparsity."""

    layer: str
    pattern: str
    sparsity: float


PrunedWeight = Callable[[WeightChoice], Tensor]
"""The weight [K, C, R, S] of a layer under a choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """Rise of the loss, in nat, with its standard error; positive: one that is lost in the noise counts as that."""

    loss: float
    error: float


def pruned_at_once(model: nn.Module) -> PrunedWeight:
    """Weights by magnitude alone, or brought to low rank, as training starts from them."""

    def pruned(choice: WeightChoice) -> Tensor:
        weight = layer_weight(model, choice.layer)
        if choice.pattern == LOW_RANK:
            return low_rank(weight, ranks_for(tuple(weight.shape), choice.sparsity))
        return weight * magnitude_mask(weight, parse_pattern(choice.pattern), choice.sparsity)

    return pruned


class Ablation:
    """Measures choices on some calibration images, as many as `wanted` ablations in `budget_s` seconds allow.

    Parameters
    ----------
    model : nn.Module
        In eval mode; left as it was.
    """

    def __init__(
        self, model: nn.Module, pruned: PrunedWeight, *, data: Labelled, wanted: float, budget_s: float
    ) -> None:
        self._model = model
        self._pruned = pruned
        self._data = _affordable(model, data, wanted, budget_s)
        self._dense = sample_losses(model, self._data)

    def measure(self, choice: WeightChoice) -> Rise:
        """Rise of the loss when this layer alone is pruned."""
        with replaced(self._model, {choice.layer: self._pruned(choice)}):
            rise = (sample_losses(self._model, self._data) - self._dense).double()
        noise = float(rise.std()) / math.sqrt(len(rise)) if len(rise) > 1 else 0.0
        return Rise(loss=max(float(rise.mean()), noise, LEAST_LOSS), error=max(noise, LEAST_LOSS))


def _affordable(model: nn.Module, data: Labelled, wanted: float, budget_s: float) -> Labelled:
    """As many images, spread over all, as let so many ablations end within the budget."""
    trial = Labelled(images=data.images[:LEAST_IMAGES], labels=data.labels[:LEAST_IMAGES])
    start = time.perf_counter()
    sample_losses(model, trial)
    image_s = (time.perf_counter() - start) / len(trial.images)
    count = min(len(data.images), max(int(budget_s / (max(wanted, 1.0) * image_s)), LEAST_IMAGES))
    spread = torch.linspace(0, len(data.images) - 1, count).round().long()
    return Labelled(images=data.images[spread], labels=data.labels[spread])
