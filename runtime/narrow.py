"""The model that a plan runs: narrower layers, without the branches that went."""

from __future__ import annotations

import copy

from torch import fx, nn

from ..kernels.errors import InputError
from ..planner.branches import remove_branches
from ..planner.narrow import living_units, narrow
from ..planner.schema import Plan, WidthGroup


def narrowed_model(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of a trained model, cut to the widths of its plan; it computes what the zeros in the model do.

    Which channels stay is read from the weights: those that are not zero.

    Raises
    ------
    InputError
        If the weights do not carry the plan's zeros.
    """
    decided = [width for width in plan.widths if width.kept < width.group.units]
    if not decided:
        return model
    for width in decided:
        if width.kept == 0:
            _check_gone(model, width.group)
    cut = copy.deepcopy(model).eval()
    narrow(cut, {each.group: living_units(model, each.group, each.kept) for each in decided if each.kept})
    removed = {frozenset(width.group.branch) for width in decided if width.kept == 0}
    if removed:
        cut = fx.symbolic_trace(cut)
        remove_branches(cut, removed)
    return cut


def _check_gone(model: nn.Module, group: WidthGroup) -> None:
    for name in group.branch:
        if any(bool(parameter.any()) for parameter in model.get_submodule(name).parameters(recurse=False)):
            raise InputError(
                f"the plan removes the branch of {group.name!r}, but {name!r} has weights that are not zero; "
                "give weights that were trained to this plan"
            )
