"""Weights that make up best for those that are gone, and what each further block would cost: exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .column_blocks import Cut

MOST_ELEMENTS = 1 << 25
"""Of the matrices that are factored at a time: 128 MiB in float32, and a few times that while they are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactRefit:
    """Least squares and Optimal Brain Surgeon scores from one Cholesky factorisation for each set of equal rows.

    Attributes
    ----------
    gram : Tensor
        [groups, D, D], positive definite.
    target : Tensor
        [K, D]: the dense weights times the matrix of their group.
    unit_rows : int
        So many neighbouring rows always have the same support; a divisor of the rows of a group.
    """

    gram: Tensor
    target: Tensor
    unit_rows: int

    def weights(self, support: Tensor, start: Tensor) -> Tensor:
        """The weights [K, D] on a support [K, D] whose output is closest to the dense one."""
        del start
        return self._solve(support, None)[0]

    def scores(self, support: Tensor, weights: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
        """The refitted weights, and by how much the error would rise without each block, all others refitted.

        For a block P of a row with the inverse V of the matrix on the row's support: w_P^T (V_PP)^-1 w_P, summed over
        the rows of a band.

        Returns
        -------
        tuple of Tensor
            [K, D], and [bands, blocks].

        References
        ----------
        Frantar & Alistarh, Optimal Brain Compression (arXiv 2208.11580), eq. 3 and 5; Hassibi & Stork, Optimal Brain
        Surgeon, 1993.
        """
        found, scores = self._solve(support, cut)
        assert scores is not None
        return found, scores

    def _solve(self, support: Tensor, cut: Cut | None) -> tuple[Tensor, Tensor | None]:
        rows, columns = support.shape
        groups = len(self.gram)
        unit = self.unit_rows
        if bool((support == support[:1]).all()):
            # Above all the first time, when every row is whole: one factorisation serves a group.
            unit = rows // groups
        blocks = cut.blocks if cut is not None else torch.arange(columns)[:, None]
        # Whole rows may be gone (filters); the others of a unit have one support.
        units = support.reshape(-1, unit, columns).any(dim=1)
        target = self.target * support.any(dim=1, keepdim=True)
        alive = torch.nn.functional.pad(units, (0, 1))[:, blocks].any(dim=2)
        most = int(alive.sum(dim=1).max())
        order = alive.long().argsort(dim=1, descending=True, stable=True)[:, : max(most, 1)]
        weights = torch.zeros(rows, columns + 1, dtype=self.gram.dtype)
        scores = None if cut is None else torch.zeros(cut.bands, len(blocks), dtype=self.gram.dtype)
        size = order.shape[1] * blocks.shape[1]
        for chosen in torch.arange(len(units)).split(max(MOST_ELEMENTS // size**2, 1)):
            index = blocks[order[chosen]].reshape(len(chosen), size)
            group = chosen * unit // (rows // groups)
            live = torch.nn.functional.pad(units[chosen], (0, 1)).gather(1, index)
            matrix = self._matrix(group, index, live)
            row = chosen[:, None] * unit + torch.arange(unit)
            right = torch.nn.functional.pad(target[row], (0, 1))
            right = right.gather(2, index[:, None].expand(-1, unit, -1)) * live[:, None]
            factor = torch.linalg.cholesky(matrix)
            found = torch.cholesky_solve(right.mT, factor).mT
            weights[row] = weights[row].scatter(2, index[:, None].expand(-1, unit, -1), found)
            if cut is not None and scores is not None:
                each = _block_scores(torch.cholesky_inverse(factor), found, blocks.shape[1])
                full = torch.zeros(len(chosen), unit, len(blocks), dtype=each.dtype)
                full.scatter_(2, order[chosen][:, None].expand(-1, unit, -1), each)
                scores.index_add_(0, cut.band_of_row()[row.flatten()], full.flatten(0, 1))
        return weights[:, :columns] * support, scores

    def _matrix(self, group: Tensor, index: Tensor, live: Tensor) -> Tensor:
        """[units, size, size]: the matrix of each unit on its columns, with ones for columns that are gone."""
        clamped = index.clamp(max=self.gram.shape[1] - 1)
        found = self.gram[group[:, None, None], clamped[:, :, None], clamped[:, None, :]]
        found = found.where(live[:, :, None] & live[:, None, :], torch.zeros((), dtype=found.dtype))
        found.diagonal(dim1=1, dim2=2).add_((~live).to(found.dtype))
        return found


def _block_scores(inverse: Tensor, weights: Tensor, size: int) -> Tensor:
    """[units, rows, blocks] from inverses [units, n, n] and weights [units, rows, n], n = blocks * size."""
    units, rows, columns = weights.shape
    if size == 1:
        return weights.square() / inverse.diagonal(dim1=1, dim2=2)[:, None]
    count = columns // size
    diagonal = inverse.reshape(units, count, size, count, size).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    parts = weights.reshape(units, rows, count, size).permute(0, 2, 3, 1)
    solved = torch.linalg.solve(diagonal, parts)
    return (parts * solved).sum(dim=2).mT
