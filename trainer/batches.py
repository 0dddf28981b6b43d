"""The batches of an epoch, decided by (seed, epoch) alone, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .augment import augment
from .data import DataSplits


def derived_seed(seed: int, epoch: int, *, stream: int) -> int:
    """An independent seed for each (seed, epoch, stream)."""
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0] >> 1)


def steps_per_epoch(data: DataSplits, batch_size: int) -> int:
    """Full batches in one epoch; a split smaller than a batch is one batch."""
    return max(1, len(data.train) // batch_size)


def training_batches(
    data: DataSplits, *, batch_size: int, generator: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented, normalised batches of one epoch; the remainder of the last batch is left out.

    Yields
    ------
    tuple of Tensor
        float32 images [N, C, H, W] and int64 labels [N] on `device`.
    """
    order = torch.randperm(len(data.train), generator=generator)
    for step in range(steps_per_epoch(data, batch_size)):
        index = order[step * batch_size : (step + 1) * batch_size]
        images = augment(data.train.images[index], data.augment, generator=generator)
        yield data.normalise(images).to(device), data.train.labels[index].to(device)
