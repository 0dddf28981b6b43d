"""The size of a model as a file: weights that are not zero, and one bit a group that says which these are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from ..kernels.groups import grid_shape
from ..kernels.pattern import BlockPart, parse_pattern
from ..kernels.problem import DTYPE_BYTES, Problem


def weight_file_bytes(problem: Problem) -> float:
    """Of a layer's weight with the zeros of its problem, its bias left out."""
    pattern = parse_pattern(problem.pattern)
    if pattern.slots > 1:
        # Under SAS activations are zero, not weights.
        return problem.weight_bytes
    kept = (1.0 - problem.sparsity) * problem.weight_bytes
    if not pattern.has_mask:
        # Low rank: the factors are dense.
        return kept
    # N:M takes one bit a weight, as an unstructured mask does.
    groups = [
        math.prod(grid_shape(problem.weight_shape, part)) if isinstance(part, BlockPart) else problem.weight_count
        for part in pattern.parts
    ]
    return kept + sum(groups) / 8.0


def other_bytes(model: nn.Module, planned: Sequence[str]) -> float:
    """Of all parameters and buffers but the weights of the planned layers."""
    weights = {id(model.get_submodule(name).get_parameter("weight")) for name in planned}
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return float(sum(t.numel() * t.element_size() for key, t in tensors.items() if key not in weights))


def float32_bytes(problem: Problem) -> float:
    """Of a layer's dense weight as it was trained."""
    return float(problem.weight_count * DTYPE_BYTES["float32"])
