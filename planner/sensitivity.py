"""Sensitivity: by how much the loss is expected to rise when a layer gets a pattern at a sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.progress import Progress, silent
from .ablation import WeightChoice, ablate, choice_mask
from .calibration import Calibration, label
from .eval_mode import evaluating
from .fisher import fisher_diagonal
from .layer_weights import layer_weight
from .loss_scale import Estimates, fit_loss_scale

__all__ = ["Calibration", "Sensitivity", "WeightChoice", "estimate_sensitivity"]

BUDGET_S = 20.0
FISHER_SHARE = 0.3
"""Of the budget, for gradients; ablations get the rest."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sensitivity:
    """Expected rise of the loss, before any training.

    Attributes
    ----------
    source : str
        "calibration": nat of cross-entropy; "magnitude": share of the squared weights that is removed.
    loss : mapping
        By choice.
    rounding : mapping
        By layer: rise when its weights are rounded to bfloat16. Activations, which are rounded too, are not counted.
    measured : mapping
        By choice: the ablations that set the scale; empty without calibration data.
    """

    source: Literal["calibration", "magnitude"]
    loss: Mapping[WeightChoice, float]
    rounding: Mapping[str, float]
    measured: Mapping[WeightChoice, float]


def estimate_sensitivity(
    model: nn.Module,
    choices: Sequence[WeightChoice],
    *,
    layers: Sequence[str],
    calibration: Calibration | None = None,
    budget_s: float = BUDGET_S,
    progress: Progress = silent,
) -> Sensitivity:
    """Estimate the loss of every choice, each as if it were the only layer pruned.

    With data: a second-order estimate, half the sum of F_ii * w_i ** 2 over the weights that the choice's own mask
    removes, F being the diagonal of the empirical Fisher information; then brought to scale by measured ablations of
    single layers. The diagonal was chosen over the group form, half the mean of (g . w_removed) ** 2: on 228 ablations
    of a ResNet-56 on CIFAR-10 its rank correlation with the measured rise was 0.88, against 0.82 for the group form
    and 0.64 for magnitude. (From a few dozen gradients the cross terms of hundreds of thousands of weights are mostly
    noise, and the diagonal needs no more memory than the weights.)

    Without data: the share of a layer's squared weights that is removed.

    Parameters
    ----------
    model : nn.Module
        Left as it was.
    layers : sequence of str
        Layers whose rounding to bfloat16 is estimated; they include those of the choices.
    budget_s : float
        Wall-clock time for gradients and ablations together, seconds.

    Raises
    ------
    InputError
        If a weight is NaN or infinite, or the model or the data are no classifier's.

    References
    ----------
    LeCun et al., Optimal Brain Damage, NIPS 1989, eq. 5 (the diagonal); Theis et al., arXiv 1801.05787 (the Fisher).
    """
    weights = {name: layer_weight(model, name) for name in layers}
    measured: Mapping[WeightChoice, float] = {}
    if calibration is None:
        importance = {name: weight.square() / weight.square().sum() for name, weight in weights.items()}
        estimates = _estimate(model, choices, importance, progress)
    else:
        with evaluating(model):
            data = label(model, calibration)
            fisher = fisher_diagonal(model, layers, data=data, budget_s=FISHER_SHARE * budget_s, progress=progress)
            importance = {
                name: 0.5 * fisher[name].reshape(weight.shape) * weight.square() for name, weight in weights.items()
            }
            estimates = _estimate(model, choices, importance, progress)
            measured = ablate(model, choices, data=data, budget_s=(1.0 - FISHER_SHARE) * budget_s, progress=progress)
    return Sensitivity(
        source="magnitude" if calibration is None else "calibration",
        loss=_monotone(_scaled(choices, estimates, measured)),
        rounding={name: _rounding(weights[name], importance[name]) for name in layers},
        measured=measured,
    )


def _estimate(
    model: nn.Module, choices: Sequence[WeightChoice], importance: Mapping[str, Tensor], progress: Progress
) -> list[float]:
    found = []
    for done, choice in enumerate(choices):
        found.append(float(importance[choice.layer][~choice_mask(model, choice)].sum()))
        progress("masks", done + 1, len(choices))
    return found


def _scaled(
    choices: Sequence[WeightChoice], estimates: Sequence[float], measured: Mapping[WeightChoice, float]
) -> dict[WeightChoice, float]:
    if not measured:
        return dict(zip(choices, estimates, strict=True))
    layer_number = {name: number for number, name in enumerate(sorted({choice.layer for choice in choices}))}
    pattern_number = {name: number for number, name in enumerate(sorted({choice.pattern for choice in choices}))}
    table = Estimates(
        loss=np.array(estimates),
        layer=np.array([layer_number[choice.layer] for choice in choices], dtype=np.intp),
        pattern=np.array([pattern_number[choice.pattern] for choice in choices], dtype=np.intp),
    )
    rows = [row for row, choice in enumerate(choices) if choice in measured]
    scale = fit_loss_scale(
        table.rows(rows),
        [measured[choices[row]] for row in rows],
        layer_count=len(layer_number),
        pattern_count=len(pattern_number),
    )
    return dict(zip(choices, scale.apply(table).tolist(), strict=True))


def _monotone(loss: Mapping[WeightChoice, float]) -> dict[WeightChoice, float]:
    """More zeros of one pattern never cost less."""
    highest: dict[tuple[str, str], float] = {}
    result = {}
    for choice in sorted(loss):
        key = choice.layer, choice.pattern
        highest[key] = max(highest.get(key, 0.0), loss[choice])
        result[choice] = highest[key]
    return result


def _rounding(weight: Tensor, importance: Tensor) -> float:
    """The importance counts removing w; rounding removes only (w - rounded w) of it."""
    change = (weight - weight.to(torch.bfloat16).float()) / weight.where(weight != 0, torch.ones_like(weight))
    return float((importance * change.square()).sum())
