"""The loss of the network with all of a plan's pruned layers in it, and the search that makes it least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from ..kernels.progress import Progress
from .ablation import PrunedWeight
from .calibration import Calibration, Labelled, label, sample_losses
from .carry_zeros import stitching
from .eval_mode import evaluating
from .layer_weights import replaced
from .search_scales import Search, Stitching, search_scales
from .targets import SEARCH_TIME_LIMIT_S, Question, solve_question

LEAST_RISE = 1e-4
"""nat: a plan that loses less than this, or gains, is taken to lose this much."""


def stitched_loss(model: nn.Module, plan: Stitching, pruned: PrunedWeight, data: Labelled) -> float:
    """Mean loss with all of a plan's layers pruned, nat; the model must be in eval mode."""
    with replaced(model, {choice.layer: pruned(choice) for choice in plan}):
        return float(sample_losses(model, data).mean())


def search_stitched(
    model: nn.Module,
    questions: Sequence[Question],
    *,
    pruned: PrunedWeight,
    calibration: Calibration,
    budget_s: float,
    progress: Progress,
) -> Search | None:
    """Factors on the layers' losses under which the plans for these questions lose least in the whole network."""
    names = [layer.layer.name for layer in questions[0].network.layers]

    def solve(scale: Mapping[str, float]) -> Sequence[Stitching] | None:
        factors = np.array([scale[name] for name in names])
        plans = []
        for question in questions:
            found = solve_question(question, layer_factors=factors, time_limit_s=SEARCH_TIME_LIMIT_S)
            if found.chosen is None:
                return None
            plans.append(stitching(question.network, question.network.picked(found.chosen)))
        return plans

    with evaluating(model):
        data = label(model, calibration)
        dense = float(sample_losses(model, data).mean())
        return search_scales(
            names,
            solve=solve,
            stitched_loss=lambda plan: stitched_loss(model, plan, pruned, data) - dense,
            budget_s=budget_s,
            progress=progress,
        )
