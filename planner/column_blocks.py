"""Which columns of a weight matrix a pattern removes together, and for which rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.groups import block_extents, grid_shape
from ..kernels.pattern import BlockPart


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """A weight [K, C, R, S], seen as rows [K, D], cut into bands of rows times blocks of columns.

    Attributes
    ----------
    rows, columns : int
        K and D = C*R*S.
    band_rows : int
        Rows of a band; the last band may have fewer.
    blocks : Tensor
        [blocks, columns of a block] int64: which columns; D stands for none, in blocks at the end of an axis.
    """

    rows: int
    columns: int
    band_rows: int
    blocks: Tensor

    @property
    def bands(self) -> int:
        return math.ceil(self.rows / self.band_rows)

    @property
    def whole_rows(self) -> bool:
        """Whether a block is a whole row, so that nothing is left that could make up for its loss."""
        return self.blocks.shape[0] == 1

    def band_of_row(self) -> Tensor:
        """[K]."""
        return torch.arange(self.rows) // self.band_rows

    def left(self, support: Tensor) -> Tensor:
        """How many weights of a support [K, D] lie in each block, [bands, blocks] int64."""
        padded = torch.nn.functional.pad(support.long(), (0, 1))
        counts = padded[:, self.blocks].sum(dim=2)
        return torch.zeros(self.bands, len(self.blocks), dtype=torch.int64).index_add_(0, self.band_of_row(), counts)

    def spread(self, removed: Tensor) -> Tensor:
        """From blocks to weights: [bands, blocks] bool to [K, D] bool."""
        by_row = removed[self.band_of_row()]
        found = torch.zeros(self.rows, self.columns + 1, dtype=torch.bool)
        found[:, self.blocks.flatten()] = by_row.repeat_interleave(self.blocks.shape[1], dim=1)
        return found[:, : self.columns]


def cut_of(part: BlockPart, shape: tuple[int, ...]) -> Cut:
    """The cut of a pattern's part in a weight [K, C, R, S]."""
    band_rows, *extents = block_extents(shape, part)
    _, *grid = grid_shape(shape, part)
    columns = math.prod(shape[1:])
    index = torch.arange(columns).reshape(shape[1:])
    padding = [
        size
        for axis, extent, count in reversed(list(zip(shape[1:], extents, grid, strict=True)))
        for size in (0, extent * count - axis)
    ]
    padded = torch.nn.functional.pad(index, padding, value=columns)
    split = padded.reshape(grid[0], extents[0], grid[1], extents[1], grid[2], extents[2])
    blocks = split.permute(0, 2, 4, 1, 3, 5).reshape(math.prod(grid), math.prod(extents))
    return Cut(rows=shape[0], columns=columns, band_rows=band_rows, blocks=blocks)


def single_columns(shape: tuple[int, ...]) -> Cut:
    """Every weight for itself, in a weight [K, C, R, S]."""
    columns = math.prod(shape[1:])
    return Cut(rows=shape[0], columns=columns, band_rows=1, blocks=torch.arange(columns)[:, None])
