"""Data as the trainer takes it: whole splits in memory, normalised on the fly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..kernels.errors import InputError

Augment = Literal["none", "shift", "crop_flip"]
"""none; shift: random translation by 1 pixel; crop_flip: pad by 4, random crop, random horizontal flip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Images [N, C, H, W] (uint8 0-255, or float32 taken as they are) and labels [N] (int64)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(
                f"data split: {len(self.images)} images but {len(self.labels)} labels; they must be as many"
            )
        if len(self.images) == 0:
            raise InputError("data split: no images; give data with at least one image")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSplits:
    """Training, validation (taken from the training data; all decisions use it) and test data (final figure only)."""

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    """Per channel, after division by 255 for uint8 images."""
    std: tuple[float, ...]
    augment: Augment

    def normalise(self, images: Tensor) -> Tensor:
        """float32 images [N, C, H, W], ready for the model."""
        scaled = images.float().div_(255.0) if images.dtype == torch.uint8 else images.float()
        shape = (1, -1, 1, 1)
        return scaled.sub(torch.tensor(self.mean).view(shape)).div_(torch.tensor(self.std).view(shape))
