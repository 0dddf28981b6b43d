"""Groups of a pattern inside a weight tensor: their norms, and masks that zero the weakest of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    return group_sums(weight.square(), part).sqrt()


def group_sums(values: Tensor, part: BlockPart) -> Tensor:
    """Sum of values [K, C, R, S] over each block, of `grid_shape`."""
    extents = block_extents(tuple(values.shape), part)
    grid = grid_shape(tuple(values.shape), part)
    padding: list[int] = []
    for axis, extent, count in reversed(list(zip(values.shape, extents, grid, strict=True))):
        padding += [0, extent * count - axis]
    padded = torch.nn.functional.pad(values, padding)
    split = [size for count, extent in zip(grid, extents, strict=True) for size in (count, extent)]
    return padded.reshape(split).sum(dim=(1, 3, 5, 7))


def expand_groups(grid: Tensor, shape: tuple[int, ...], part: BlockPart) -> Tensor:
    """Spread one value a block over all weights of the block: the inverse view of `group_norms`."""
    extents = block_extents(shape, part)
    split = [size for count, extent in zip(grid.shape, extents, strict=True) for size in (count, extent)]
    spread = grid[:, None, :, None, :, None, :, None].expand(split)
    full = spread.reshape([count * extent for count, extent in zip(grid.shape, extents, strict=True)])
    return full[tuple(slice(size) for size in shape)]


def group_sizes(shape: tuple[int, ...], part: BlockPart) -> Tensor:
    """Number of weights in each block, of `grid_shape`; smaller at the ends of an axis."""
    ones = torch.ones(shape)
    return group_sums(ones, part)


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
    return next(magnitude_masks(weight, pattern, (sparsity,)))


def magnitude_masks(weight: Tensor, pattern: Pattern, sparsities: Sequence[float]) -> Iterator[Tensor]:
    """`magnitude_mask` at each of several sparsities; the groups of the pattern's first part are sorted once for all.

    Raises
    ------
    InputError
        If a sparsity is outside [0, 1] or `weight` is not four-dimensional.
    UnsupportedError
        If the pattern masks activations (SAS) and not weights.
    """
    if weight.dim() != 4:
        raise InputError(
            f"a mask needs a weight [K, C, R, S], got shape {tuple(weight.shape)}; view a linear as [K, C, 1, 1]"
        )
    for sparsity in sparsities:
        if not 0.0 <= sparsity <= 1.0:
            raise InputError(f"sparsity must lie in [0, 1], got {sparsity}")
    whole = torch.ones_like(weight, dtype=torch.bool)
    # What the first part sees does not depend on the sparsity.
    first = [_ranked(weight, whole, part) for part in pattern.parts[:1]]
    for sparsity in sparsities:
        density = free_density(pattern, sparsity)
        mask = whole.clone()
        for number, part in enumerate(pattern.parts):
            ranked = _ranked(weight, mask, part) if number else first[0]
            mask &= ranked.mask(density) if isinstance(ranked, Ranking) else ranked
        yield mask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranking:
    """Blocks of a part in a weight, the strongest first.

    Attributes
    ----------
    order : Tensor
        [blocks] int64, numbers of the blocks; those of which nothing is left come last.
    left : int
        Of how many blocks anything is left.
    """

    part: BlockPart
    shape: tuple[int, ...]
    order: Tensor
    left: int

    def kept(self, density: float) -> int:
        """How many blocks stay; at least one does."""
        return max(1, round(density * self.left))

    def mask(self, density: float) -> Tensor:
        """bool, [K, C, R, S]; True in the blocks that stay."""
        flat = torch.zeros(len(self.order), dtype=torch.bool, device=self.order.device)
        flat[self.order[: self.kept(density)]] = True
        return expand_groups(flat.view(grid_shape(self.shape, self.part)), self.shape, self.part)


def rank_blocks(weight: Tensor, mask: Tensor, part: BlockPart) -> Ranking:
    """Rank the blocks of what a mask has left of a weight.

    By the root mean square over the weights that are left, not by the norm: a block that is smaller, at the end of an
    axis or by an earlier part, must not lose for its size alone.
    """
    norms = group_norms((weight.detach() * mask).float(), part)
    left = group_sums(mask.float(), part)
    score = torch.where(left > 0, norms / left.clamp(min=1.0).sqrt(), -1.0)
    return Ranking(
        part=part,
        shape=tuple(weight.shape),
        order=score.flatten().argsort(descending=True, stable=True),
        left=int((left > 0).sum()),
    )


def free_density(pattern: Pattern, sparsity: float) -> float:
    """Share of its groups that each part with a free sparsity keeps, so that all parts together reach `sparsity`.

    A density d over p free parts gives each the density d ** (1 / p), after N:M parts have taken theirs.
    """
    nm_density = math.prod(part.n / part.m for part in pattern.parts if isinstance(part, NmPart))
    free_parts = sum(not isinstance(part, NmPart) for part in pattern.parts)
    return min(1.0, (1.0 - sparsity) / nm_density) ** (1.0 / free_parts) if free_parts else 1.0


def _ranked(weight: Tensor, mask: Tensor, part: Part) -> Ranking | Tensor:
    """Of a part whose sparsity is free its ranking, of one that dictates it the mask itself."""
    if isinstance(part, NmPart):
        return _nm_mask(weight.detach() * mask, part)
    if not isinstance(part, BlockPart):
        raise UnsupportedError(f"pattern {part.name!r} leaves weights dense; it has no weight mask")
    return rank_blocks(weight, mask, part)


def shared_columns(weight: Tensor, part: NmPart) -> Tensor:
    """The columns of the largest norms that v neighbouring outputs may use, of each m: bool, [K, C, R, S]."""
    column = BlockPart(name="column", block=(part.v, 1, 1, 1))
    norms = group_norms(weight.detach().float(), column)
    kept = _nm_mask(norms, NmPart(name=part.name, n=part.columns, m=part.m))
    return expand_groups(kept, tuple(weight.shape), column)


def _nm_mask(weight: Tensor, part: NmPart) -> Tensor:
    if part.v > 1:
        kept = shared_columns(weight, part)
        return kept & _nm_mask(weight * kept, NmPart(name=part.name, n=part.n, m=part.m))
    k, c, r, s = weight.shape
    groups = math.ceil(c / part.m)
    magnitude = torch.nn.functional.pad(weight.abs(), [0, 0, 0, 0, 0, groups * part.m - c], value=-1.0)
    magnitude = magnitude.reshape(k, groups, part.m, r, s)
    order = magnitude.argsort(dim=2, descending=True, stable=True)
    keep = torch.zeros_like(magnitude, dtype=torch.bool).scatter_(2, order[:, :, : part.n], True)
    return keep.reshape(k, groups * part.m, r, s)[:, :c]
