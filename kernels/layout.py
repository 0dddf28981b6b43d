"""Memory order of activations: the tensors that a kernel of each layout takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from .errors import InputError
from .spec import Layout

MEMORY_FORMATS: Mapping[Layout, torch.memory_format] = {
    "nchw": torch.contiguous_format,
    "nhwc": torch.channels_last,
}
"""Of the layouts that torch's own tensors have; the others are contiguous tensors of another shape."""
CPU = torch.device("cpu")
BLOCK_IMAGES: Mapping[Layout, int] = {"n16chw": 16, "n8chw": 8, "n4chw": 4}
"""Images interleaved innermost in the blocked layouts."""


def activation_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Shape of the tensor that holds activations [N, C, H, W] or [N, C] in a layout.

    A blocked layout of b images is a contiguous [ceil(N / b), C, H, W, b]. Lanes beyond N hold anything: no kernel
    mixes lanes, and none promises what it leaves there.
    """
    block = BLOCK_IMAGES.get(layout)
    return shape if block is None else (-(-shape[0] // block), *shape[1:], block)


def native_layout(layout: Layout) -> Literal["nchw", "nhwc", "blocked"]:
    """What native code calls a layout: it knows the width of its own vectors."""
    return layout if layout == "nchw" or layout == "nhwc" else "blocked"


def memory_format(dims: int, layout: Layout) -> torch.memory_format:
    """Memory order of a tensor of that many dimensions: of two, [N, C], every layout makes the same."""
    return MEMORY_FORMATS.get(layout, torch.contiguous_format) if dims == 4 else torch.contiguous_format


def empty_activation(
    shape: tuple[int, ...], dtype: torch.dtype, layout: Layout, *, device: torch.device = CPU
) -> Tensor:
    """Memory for activations [N, C, H, W] or [N, C] in a layout."""
    stored = activation_shape(shape, layout)
    return torch.empty(stored, dtype=dtype, memory_format=memory_format(len(stored), layout), device=device)


def is_in_layout(tensor: Tensor, layout: Layout) -> bool:
    """Whether the memory order of a tensor of the layout's shape is that of the layout."""
    return tensor.is_contiguous(memory_format=memory_format(tensor.dim(), layout))


def check_residual(
    residual: Tensor, shape: tuple[int, ...], dtype: torch.dtype, layout: Layout, *, device: torch.device = CPU
) -> None:
    """Refuse a residual that is not like the output it is added to.

    Parameters
    ----------
    shape : tuple of int
        Of the output: [N, K, H', W'] or [N, K].
    device : torch.device
        Of the output.

    Raises
    ------
    InputError
        If shape, dtype, device or memory order differ.
    """
    wanted = activation_shape(shape, layout)
    fits = tuple(residual.shape) == wanted and residual.dtype == dtype and residual.device == device
    if not fits or not is_in_layout(residual, layout):
        raise InputError(
            f"residual is {residual.dtype} {list(residual.shape)} with strides {list(residual.stride())} on "
            f"{residual.device}; it must be like the output: {dtype} {list(wanted)} in {layout} order on {device}"
        )
