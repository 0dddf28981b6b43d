"""The loss of the network with all that a plan takes out of it, and the search that makes it least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from ..kernels.progress import Progress
from .ablation import PrunedWeight
from .calibration import Calibration, Labelled, label, sample_losses
from .carry_zeros import Stitcher, Stitching, stitching
from .eval_mode import evaluating
from .search_scales import Search, search_scales
from .sensitivity import width_name
from .targets import SEARCH_TIME_LIMIT_S, Question, solve_question

LEAST_RISE = 1e-4
"""nat: a plan that loses less than this, or gains, is taken to lose this much."""


def stitched_loss(model: nn.Module, plan: Stitching, stitcher: Stitcher, data: Labelled) -> float:
    """Mean loss with all of a plan in it, nat; the model, that of the stitcher, must be in eval mode."""
    with stitcher.carrying(plan):
        return float(sample_losses(model, data).mean())


def search_stitched(
    model: nn.Module,
    questions: Sequence[Question],
    *,
    refitted: PrunedWeight,
    calibration: Calibration,
    budget_s: float,
    progress: Progress,
) -> Search | None:
    """Factors on the losses of layers and widths under which the plans for these questions lose least as a whole."""
    network = questions[0].network
    names = [layer.layer.name for layer in network.layers]
    names += [width_name(each.group.name) for each in network.widths.groups]
    stitcher = Stitcher(model, network.widths.groups, refitted)

    def solve(scale: Mapping[str, float]) -> Sequence[Stitching] | None:
        factors = np.array([scale[name] for name in names])
        plans = []
        for question in questions:
            found = solve_question(question, factors=factors, time_limit_s=SEARCH_TIME_LIMIT_S)
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
            stitched_loss=lambda plan: stitched_loss(model, plan, stitcher, data) - dense,
            budget_s=budget_s,
            progress=progress,
        )
