"""Run a network that is compiled for one batch size on any number of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FixedBatch(nn.Module):
    """Cuts its input into batches of exactly `batch` images; the last one is filled up with repeats.

    The network inside works in `dtype`; what goes in and comes out is float32.
    """

    def __init__(self, model: nn.Module, *, batch: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model = model
        self.batch = batch
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """[M, ...] in, [M, ...] out, for any M >= 1."""
        missing = -len(x) % self.batch
        filled = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x
        return torch.cat([self.model(part.to(self.dtype)).float() for part in filled.split(self.batch)])[: len(x)]
