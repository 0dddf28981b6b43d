"""The refitted weights that a plan was made with, where training then starts."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ..kernels.pattern import parse_pattern
from ..planner.ablation import WeightChoice
from ..planner.options import NO_KERNEL
from ..planner.pruned_layers import read_layers
from ..planner.schema import Plan


def refitted_weights(plan: Plan, model: nn.Module) -> dict[str, Tensor]:
    """Pruned weights [K, C, R, S] of the sparse layers of a plan, refitted after the removal; empty without a database.

    Parameters
    ----------
    model : nn.Module
        With the dense weights that the database was made from.

    Raises
    ------
    InputError
        If the database is gone, is of other weights, or lacks a layer of the plan.
    """
    choices = [
        WeightChoice(layer=layer.name, pattern=layer.chosen.pattern, sparsity=layer.chosen.sparsity)
        for layer in plan.layers
        if layer.chosen.kernel != NO_KERNEL and not parse_pattern(layer.chosen.pattern).is_dense
    ]
    if plan.pruned_layers_path is None or not choices:
        return {}
    return read_layers(model, choices, folder=Path(plan.pruned_layers_path))
