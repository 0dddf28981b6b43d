"""Groups of a pattern inside a weight tensor: their norms, and masks that zero the weakest of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import InputError, UnsupportedError
from .pattern import BlockPart, NmPart, Part, Pattern


def block_extents(shape: tuple[int, ...], part: BlockPart) -> tuple[int, int, int, int]:
    """Extent of one block on each axis of a weight of `shape` [K, C, R, S]."""
    k, c, r, s = (axis if extent is None else min(extent, axis) for axis, extent in zip(shape, part.block, strict=True))
    return k, c, r, s


def grid_shape(shape: tuple[int, ...], part: BlockPart) -> tuple[int, int, int, int]:
    """Number of blocks along each axis; blocks at the end of an axis may be smaller."""
    k, c, r, s = (math.ceil(axis / extent) for axis, extent in zip(shape, block_extents(shape, part), strict=True))
    return k, c, r, s


def group_norms(weight: Tensor, part: BlockPart) -> Tensor:
    """L2 norm of each block.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S].

    Returns
    -------
    Tensor
        One norm a block, of `grid_shape`.
    """
    extents = block_extents(tuple(weight.shape), part)
    grid = grid_shape(tuple(weight.shape), part)
    padding: list[int] = []
    for axis, extent, count in reversed(list(zip(weight.shape, extents, grid, strict=True))):
        padding += [0, extent * count - axis]
    padded = torch.nn.functional.pad(weight, padding)
    split = [size for count, extent in zip(grid, extents, strict=True) for size in (count, extent)]
    return padded.reshape(split).square().sum(dim=(1, 3, 5, 7)).sqrt()


def expand_groups(grid: Tensor, shape: tuple[int, ...], part: BlockPart) -> Tensor:
    """Spread one value a block over all weights of the block: the inverse view of `group_norms`."""
    full = grid
    for axis, extent in enumerate(block_extents(shape, part)):
        full = full.repeat_interleave(extent, dim=axis)
    return full[tuple(slice(size) for size in shape)]


def group_sizes(shape: tuple[int, ...], part: BlockPart) -> Tensor:
    """Number of weights in each block, of `grid_shape`; smaller at the ends of an axis."""
    ones = torch.ones(shape)
    return group_norms(ones, part).square().round()


def magnitude_mask(weight: Tensor, pattern: Pattern, sparsity: float) -> Tensor:
    """Mask that keeps the strongest groups of a pattern.

    Parts of a combined pattern are applied in turn ("shrink first, then skip in what is left"), each to what the
    parts before it left; see `free_density`.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S].
    sparsity : float
        Share of the weights to zero, in [0, 1]; N:M parts dictate theirs, the other parts make up the rest.

    Returns
    -------
    Tensor
        bool, [K, C, R, S]; True where a weight is kept. A block pattern keeps at least one group.

    Raises
    ------
    InputError
        If `sparsity` is outside [0, 1] or `weight` is not four-dimensional.
    UnsupportedError
        If the pattern masks activations (SAS) and not weights.
    """
    if weight.dim() != 4:
        raise InputError(
            f"a mask needs a weight [K, C, R, S], got shape {tuple(weight.shape)}; view a linear as [K, C, 1, 1]"
        )
    if not 0.0 <= sparsity <= 1.0:
        raise InputError(f"sparsity must lie in [0, 1], got {sparsity}")
    mask = torch.ones_like(weight, dtype=torch.bool)
    density = free_density(pattern, sparsity)
    for part in pattern.parts:
        mask &= _part_mask(weight, mask, part, density)
    return mask


def free_density(pattern: Pattern, sparsity: float) -> float:
    """Share of its groups that each part with a free sparsity keeps, so that all parts together reach `sparsity`.

    A density d over p free parts gives each the density d ** (1 / p), after N:M parts have taken theirs.
    """
    nm_density = math.prod(part.n / part.m for part in pattern.parts if isinstance(part, NmPart))
    free_parts = sum(not isinstance(part, NmPart) for part in pattern.parts)
    return min(1.0, (1.0 - sparsity) / nm_density) ** (1.0 / free_parts) if free_parts else 1.0


def _part_mask(weight: Tensor, mask: Tensor, part: Part, density: float) -> Tensor:
    weight = weight.detach() * mask
    if isinstance(part, NmPart):
        return _nm_mask(weight, part)
    if not isinstance(part, BlockPart):
        raise UnsupportedError(f"pattern {part.name!r} leaves weights dense; it has no weight mask")
    norms = group_norms(weight.float(), part)
    left = group_norms(mask.float(), part).square().round()
    keep = max(1, round(density * int((left > 0).sum())))
    # Root mean square over the weights that are left, not the norm: a block that is smaller, at the end of an axis or
    # by an earlier part, must not lose for its size alone. Blocks that are gone already come last.
    score = torch.where(left > 0, norms / left.clamp(min=1.0).sqrt(), -1.0)
    flat = torch.zeros(norms.numel(), dtype=torch.bool, device=weight.device)
    flat[score.flatten().argsort(descending=True, stable=True)[:keep]] = True
    return expand_groups(flat.view(norms.shape), tuple(weight.shape), part)


def _nm_mask(weight: Tensor, part: NmPart) -> Tensor:
    k, c, r, s = weight.shape
    groups = math.ceil(c / part.m)
    magnitude = torch.nn.functional.pad(weight.abs(), [0, 0, 0, 0, 0, groups * part.m - c], value=-1.0)
    magnitude = magnitude.reshape(k, groups, part.m, r, s)
    order = magnitude.argsort(dim=2, descending=True, stable=True)
    keep = torch.zeros_like(magnitude, dtype=torch.bool).scatter_(2, order[:, :, : part.n], True)
    return keep.reshape(k, groups * part.m, r, s)[:, :c]
