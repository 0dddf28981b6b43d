"""Random translation, crop and flip of a batch of images, in one gather."""

from __future__ import annotations

import torch
from torch import Tensor

from .data import Augment

_MARGIN = {"none": 0, "shift": 1, "crop_flip": 4}
"""Pixels of zeros around each image before the crop back to its size."""


def augment(images: Tensor, kind: Augment, *, generator: torch.Generator, part: slice = slice(None)) -> Tensor:
    """Draw one variant of each image.

    Parameters
    ----------
    images : Tensor
        [N, C, H, W], any dtype.
    kind : Augment
        "shift" translates by up to 1 pixel, "crop_flip" pads by 4, crops and flips half of the images left to right.
    generator : torch.Generator
        On the CPU; decides everything.
    part : slice
        Which images to give back; the draws are those of the whole batch, whoever computes which part.

    Returns
    -------
    Tensor
        [N, C, H, W] of the part; the images themselves for "none".
    """
    margin = _MARGIN[kind]
    if margin == 0:
        return images[part]
    n, _, height, width = images.shape
    rows = torch.arange(height) + torch.randint(2 * margin + 1, (n, 1), generator=generator)
    columns = torch.arange(width).expand(n, width)
    if kind == "crop_flip":
        flipped = torch.rand((n, 1), generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    columns = columns + torch.randint(2 * margin + 1, (n, 1), generator=generator)
    padded = torch.nn.functional.pad(images[part], [margin] * 4)
    rows, columns = rows[part], columns[part]
    picked = padded[torch.arange(len(padded))[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)
