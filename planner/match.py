"""Check that a plan belongs to a model."""

from __future__ import annotations

import difflib

from torch import nn

from ..kernels.errors import InputError
from ..kernels.sas import SlotLayer
from ..kernels.weight_view import weight_view
from .schema import Plan


def check_plan_fits(plan: Plan, model: nn.Module) -> None:
    """Check that every planned layer exists in a model with the weight shape that the plan was made for.

    A layer under SAS must have the slots that the plan gives it.

    Raises
    ------
    InputError
        Names the first layer that does not fit, and both shapes.
    """
    modules = dict(model.named_modules())
    kinds = {"conv2d": nn.Conv1d | nn.Conv2d, "linear": nn.Linear}
    for layer in plan.layers:
        module = modules.get(layer.name)
        if module is None:
            close = difflib.get_close_matches(layer.name, list(modules), n=3, cutoff=0.5)
            raise InputError(
                f"the plan is for {plan.model} and has a layer {layer.name!r}, the model has none of that name"
                + (f" (close: {', '.join(close)})" if close else "")
                + "; give the model that the plan was made for"
            )
        under_sas = isinstance(module, SlotLayer)
        if not isinstance(module, kinds[layer.full_problem.op]) and not under_sas:
            raise InputError(
                f"layer {layer.name!r} is a {type(module).__name__}, the plan has a {layer.full_problem.op} there; "
                "give the model that the plan was made for"
            )
        shape = tuple(weight_view(module).shape)
        planned = (layer.problem if under_sas else layer.full_problem).weight_shape
        if shape != planned:
            # As the module has it: no spatial axes in a linear, none of height in a Conv1d.
            held = tuple(module.get_parameter("weight").shape)
            wanted = planned[:2] if len(held) == 2 else planned if len(held) == 4 else (*planned[:2], planned[3])
            raise InputError(
                f"layer {layer.name!r} has a weight {list(held)}, the plan was made for {list(wanted)}; "
                "give the model that the plan was made for, or plan again"
            )
