"""What the zeros of a pattern take away, at every sparsity from one sort."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels.groups import free_density, group_sums, magnitude_masks, rank_blocks
from ..kernels.pattern import BlockPart, Pattern


def removed_sums(weight: Tensor, values: Tensor, pattern: Pattern, sparsities: Sequence[float]) -> list[float]:
    """Sum of values over the weights that `magnitude_mask` removes, at each of several sparsities.

    Where one block part is all of the pattern, blocks are summed and sorted once, and no mask is made.

    Parameters
    ----------
    weight, values : Tensor
        [K, C, R, S].

    Returns
    -------
    list of float
        In the order of the sparsities, summed in float64.

    Raises
    ------
    UnsupportedError
        If the pattern masks activations (SAS).
    """
    part = pattern.parts[0] if len(pattern.parts) == 1 else None
    if not isinstance(part, BlockPart):
        masks = magnitude_masks(weight, pattern, sparsities)
        return [float(values.masked_fill(mask, 0.0).sum(dtype=torch.float64)) for mask in masks]
    ranking = rank_blocks(weight, torch.ones_like(weight, dtype=torch.bool), part)
    by_block = group_sums(values.double(), part).flatten()[ranking.order]
    # From the weakest on, so that what a mild sparsity takes is not the difference of two large sums.
    tails = torch.cat([by_block.flip(0).cumsum(0).flip(0), by_block.new_zeros(1)])
    return [float(tails[ranking.kept(free_density(pattern, sparsity))]) for sparsity in sparsities]
