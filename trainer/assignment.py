"""What the trainer takes from a plan: which widths shrink, and which layer gets which pattern, at which sparsity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import nn

from ..kernels.errors import InputError
from ..kernels.pattern import Pattern, parse_pattern
from ..planner.options import NO_KERNEL
from ..planner.schema import Plan, WidthGroup
from .marginal_time import time_fracs


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """The zeros of one layer: `sparsity` is the share of its weights that the pattern's groups take away."""

    name: str
    """Dotted module name."""
    pattern: Pattern
    sparsity: float
    time_frac: float = 1.0
    """What removing one group saves on the machine, relative to the mean over the planned layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthSparsity:
    """Channels that several layers lose together: `kept` units of a group stay."""

    group: WidthGroup
    kept: int

    @property
    def name(self) -> str:
        """Of the group, told apart from that of the layer."""
        return f"width of {self.group.name}"


Assignment = tuple[LayerSparsity | WidthSparsity, ...]


def assignment_of(plan: Plan) -> Assignment:
    """The widths that a plan shrinks, then its sparse layers, each in its order; what stays as it is is left out.

    So are layers under SAS, whose weights lose nothing (`sas.network_of`).
    """
    widths = tuple(
        WidthSparsity(group=width.group, kept=width.kept) for width in plan.widths if width.kept < width.group.units
    )
    chosen = (
        (layer.name, parse_pattern(layer.chosen.pattern), layer.chosen.sparsity)
        for layer in plan.layers
        if layer.chosen.kernel != NO_KERNEL
    )
    saved = time_fracs(plan)
    return widths + tuple(
        LayerSparsity(name=name, pattern=pattern, sparsity=sparsity, time_frac=saved.get(name, 1.0))
        for name, pattern, sparsity in chosen
        if not pattern.is_dense and pattern.has_mask
    )


def assignment_sha256(assignment: Assignment) -> str:
    """Fingerprint of an assignment: equal exactly when widths, layers, patterns and sparsities are."""
    lines = (
        f"{each.name}\t{each.pattern}\t{each.sparsity!r}\n"
        if isinstance(each, LayerSparsity)
        else f"{each.name}\t{each.kept}\t{each.group.model_dump_json()}\n"
        for each in assignment
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def planned_module(model: nn.Module, layer: LayerSparsity) -> nn.Conv1d | nn.Conv2d | nn.Linear:
    """The module that a layer of the assignment names.

    Raises
    ------
    InputError
        If the model has no such module, or it is no Conv1d, Conv2d or Linear.
    """
    try:
        module = model.get_submodule(layer.name)
    except AttributeError:
        raise InputError(
            f"the plan names layer {layer.name!r}, which {type(model).__name__} does not have; "
            "give the model that the plan was made for"
        ) from None
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        raise InputError(
            f"the plan prunes layer {layer.name!r}, which is a {type(module).__name__}; "
            "only Conv1d, Conv2d and Linear can be"
        )
    return module
