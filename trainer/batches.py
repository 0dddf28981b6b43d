"""The batches of an epoch, decided by (seed, epoch) alone, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .augment import augment
from .auto_augment import auto_augment
from .data import Augment, DataSplits
from .processes import ALONE, Processes


def derived_seed(seed: int, epoch: int, *, stream: int) -> int:
    """An independent seed for each (seed, epoch, stream)."""
    return int(np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0] >> 1)


def steps_per_epoch(data: DataSplits, batch_size: int) -> int:
    """Full batches in one epoch; a split smaller than a batch is one batch."""
    return max(1, len(data.train) // batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the images of a batch are varied."""

    augment: Augment
    auto_augment: bool = False


def training_batches(
    data: DataSplits,
    *,
    batch_size: int,
    generator: torch.Generator,
    device: torch.device,
    recipe: Recipe | None = None,
    processes: Processes = ALONE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, augmented, normalised batches of one epoch; the remainder of the last batch is left out.

    Parameters
    ----------
    recipe : Recipe, optional
        By default what the data bring.
    processes : Processes
        Each of several gets its part of every batch; together they hold the batch that one alone would have.

    Yields
    ------
    tuple of Tensor
        float32 images [N, C, H, W] and int64 labels [N] on `device`.
    """
    recipe = recipe or Recipe(augment=data.augment)
    order = torch.randperm(len(data.train), generator=generator)
    for step in range(steps_per_epoch(data, batch_size)):
        index = order[step * batch_size : (step + 1) * batch_size]
        part = processes.part(len(index))
        images = data.train.images[index]
        if recipe.auto_augment:
            # Of all images, then of a part: the crop's draws come first, so that they are the same with and without.
            images = augment(images, recipe.augment, generator=generator)
            images = auto_augment(images, generator=generator, part=part)
        else:
            images = augment(images, recipe.augment, generator=generator, part=part)
        yield data.normalise(images).to(device), data.train.labels[index[part]].to(device)
