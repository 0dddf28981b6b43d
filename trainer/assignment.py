"""What the trainer takes from a plan: which layer gets which pattern, at which sparsity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import nn

from ..kernels.errors import InputError
from ..kernels.pattern import Pattern, parse_pattern
from ..planner.schema import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """The zeros of one layer: `sparsity` is the share of its weights that the pattern's groups take away."""

    name: str
    """Dotted module name."""
    pattern: Pattern
    sparsity: float


Assignment = tuple[LayerSparsity, ...]


def assignment_of(plan: Plan) -> Assignment:
    """The sparse layers of a plan, in its order; layers that stay dense are left out."""
    chosen = ((layer.name, parse_pattern(layer.chosen.pattern), layer.chosen.sparsity) for layer in plan.layers)
    return tuple(
        LayerSparsity(name=name, pattern=pattern, sparsity=sparsity)
        for name, pattern, sparsity in chosen
        if not pattern.is_dense
    )


def assignment_sha256(assignment: Assignment) -> str:
    """Fingerprint of an assignment: equal exactly when layers, patterns and sparsities are."""
    lines = (f"{layer.name}\t{layer.pattern}\t{layer.sparsity!r}\n" for layer in assignment)
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
