"""The shape of one batch of a model's input, as given."""

from __future__ import annotations

from collections.abc import Sequence

from ..kernels.errors import InputError


def parse_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Check the shape of one batch, [N, C, H, W], [N, C], or [N, T] of token ids.

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
