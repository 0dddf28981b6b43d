"""From arrays of training and test images to the splits that the trainer takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..kernels.errors import InputError
from ..trainer.data import Augment, DataSplits, Split
from .holdout import stratified_holdout

VALIDATION_FRAC = 0.1
"""Share of the training images of each class that is held out for decisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images [N, C, H, W] (uint8 or float32) with labels [N] (int64)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> Split:
        """The images at `indices`, as a split."""
        return Split(images=torch.from_numpy(self.images[indices]), labels=torch.from_numpy(self.labels[indices]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """Mean and standard deviation per channel, of images scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def assemble(
    name: str,
    train: Images,
    *,
    test: Images,
    validation: Images | None = None,
    classes: tuple[str, ...],
    normalisation: Normalisation | None = None,
    augment: Augment,
) -> DataSplits:
    """Put splits together.

    Parameters
    ----------
    validation : Images, optional
        By default a tenth of each class of `train`, the same at every call, which then no longer trains.
    normalisation : Normalisation, optional
        By default measured on `train`, validation images included; the test images never enter it.

    Raises
    ------
    InputError
        If a split is empty or cannot be divided, or training and test images differ in channels or size.
    """
    parts = {"training": train, "test": test} | ({} if validation is None else {"validation": validation})
    for part, content in parts.items():
        if len(content) == 0:
            raise InputError(f"{name}: no {part} images; give at least one of each class")
        if content.images.shape[1:] != train.images.shape[1:]:
            raise InputError(
                f"{name}: {part} images are {_size(content)}, training images are {_size(train)} "
                "(channels x height x width); they must be alike"
            )
    found = normalisation or measure_normalisation(train.images)
    if validation is None:
        kept, held = stratified_holdout(train.labels, VALIDATION_FRAC)
        if len(held) == 0:
            raise InputError(f"{name}: every class has a single training image; give at least two to validate with one")
        train_split, validation_split = train.take(kept), train.take(held)
    else:
        train_split, validation_split = train.take(np.arange(len(train))), validation.take(np.arange(len(validation)))
    return DataSplits(
        name=name,
        train=train_split,
        validation=validation_split,
        test=test.take(np.arange(len(test))),
        classes=classes,
        mean=found.mean,
        std=found.std,
        augment=augment,
    )


def measure_normalisation(images: np.ndarray) -> Normalisation:
    """Mean and standard deviation per channel.

    Parameters
    ----------
    images : array
        [N, C, H, W]; uint8, measured after division by 255; floats are taken as they are and get mean 0 and
        deviation 1.
    """
    channels = images.shape[1]
    if images.dtype != np.uint8:
        return Normalisation(mean=(0.0,) * channels, std=(1.0,) * channels)
    levels = np.arange(256) / 255.0
    means, deviations = [], []
    for channel in range(channels):
        # A histogram is exact and needs no float copy of all the images.
        share = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        mean = float(share @ levels)
        deviation = float(np.sqrt(share @ (levels - mean) ** 2))
        means.append(mean)
        # A channel that never varies is left unscaled.
        deviations.append(deviation if deviation > 0 else 1.0)
    return Normalisation(mean=tuple(means), std=tuple(deviations))


def _size(content: Images) -> str:
    return " x ".join(str(extent) for extent in content.images.shape[1:])
