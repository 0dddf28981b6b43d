"""One batch of a model's input: its shape as given, and random numbers of that shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels.errors import InputError


def parse_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Check the shape of one batch, [N, C, H, W] or [N, C].

    Raises
    ------
    InputError
        If it has fewer than two sizes, or one below 1.
    """
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(
            f"--input {','.join(map(str, shape))}: allowed are at least two sizes of 1 or more, such as 16,3,32,32"
        )
    return tuple(shape)


def random_batch(shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, the same ones each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
