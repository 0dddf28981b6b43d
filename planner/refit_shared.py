"""Weights that make up for those that are gone, for layers too large to factor a matrix for every row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .column_blocks import Cut

MOST_STEPS = 24
SCORE_STEPS = 6
"""To tell which weights cost least on the way, about right is enough: each score is an approximation already."""
TOLERANCE = 1e-3
"""Of the residual against the right side; beyond it the error of the layer hardly falls."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedRefit:
    """Scores from one inverse that all rows share, weights by conjugate gradients.

    The inverse on the support of each row, which exact scores need, is replaced by that of the whole matrix, as
    SparseGPT does; the weights, and with them the errors, are those of least squares all the same, as far as the
    conjugate gradients have come.

    Attributes
    ----------
    gram, inverse : Tensor
        [groups, D, D].
    target : Tensor
        [K, D]: the dense weights times the matrix of their group.

    References
    ----------
    Frantar & Alistarh, SparseGPT, ICML 2023 (arXiv 2301.00774), section 3; Saad, Iterative Methods for Sparse Linear
    Systems, algorithm 9.1 (conjugate gradients, here with the diagonal as preconditioner).
    """

    gram: Tensor
    inverse: Tensor
    target: Tensor

    def weights(self, support: Tensor, start: Tensor, *, steps: int = MOST_STEPS) -> Tensor:
        """The weights [K, D] on a support, searched from weights that were good before."""
        groups, columns, _ = self.gram.shape
        mask = support.to(self.gram.dtype).reshape(groups, -1, columns)
        scale = mask / self.gram.diagonal(dim1=1, dim2=2)[:, None]
        goal = self.target.reshape(mask.shape) * mask
        found = start.reshape(mask.shape) * mask
        residual = goal - (found @ self.gram) * mask
        ahead = residual * scale
        direction, product = ahead, (residual * ahead).sum(dim=2, keepdim=True)
        limit = TOLERANCE**2 * (goal.square() * scale).sum(dim=2, keepdim=True)
        for _ in range(steps):
            if bool((product <= limit).all()):
                break
            image = (direction @ self.gram) * mask
            curvature = (direction * image).sum(dim=2, keepdim=True)
            step = torch.where(curvature > 0, product / curvature.clamp(min=1e-30), 0.0)
            found = found + step * direction
            residual = residual - step * image
            ahead = residual * scale
            before, product = product, (residual * ahead).sum(dim=2, keepdim=True)
            direction = ahead + torch.where(before > 0, product / before.clamp(min=1e-30), 0.0) * direction
        return found.reshape(support.shape)

    def scores(self, support: Tensor, weights: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
        """Refitted weights [K, D], and about what each block costs, [bands, blocks]."""
        found = self.weights(support, weights, steps=SCORE_STEPS)
        groups = len(self.gram)
        rows = len(support) // groups
        scores = torch.zeros(cut.bands, len(cut.blocks), dtype=self.gram.dtype)
        padded = torch.nn.functional.pad(found, (0, 1))
        for group in range(groups):
            member = torch.arange(group * rows, (group + 1) * rows)
            parts = padded[member][:, cut.blocks]
            if cut.blocks.shape[1] == 1:
                each = parts[:, :, 0].square() / self.inverse[group].diagonal()
            else:
                each = (parts * (parts.movedim(1, 0) @ self._own(group, cut.blocks)).movedim(0, 1)).sum(dim=2)
            scores.index_add_(0, cut.band_of_row()[member], each)
        return found, scores

    def _own(self, group: int, blocks: Tensor) -> Tensor:
        """[blocks, size, size]: inverse of each block of the inverse; columns that are none stand alone."""
        columns = self.gram.shape[1]
        index, real = blocks.clamp(max=columns - 1), blocks < columns
        found = self.inverse[group][index[:, :, None], index[:, None, :]]
        found = found.where(real[:, :, None] & real[:, None, :], torch.zeros((), dtype=found.dtype))
        found.diagonal(dim1=1, dim2=2).add_((~real).to(found.dtype))
        return torch.linalg.inv(found)
