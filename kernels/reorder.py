"""Reorders of activations: between the layouts of networks and the blocked ones, and to what a kernel takes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor  # before _native: the extension must share torch's OpenMP runtime

from . import _native
from .errors import InputError, UnsupportedError
from .layout import BLOCK_IMAGES, MEMORY_FORMATS, empty_activation, native_layout
from .spec import Cost, Layout

ISA_OF_BLOCK: Mapping[int, str] = {16: "avx512", 8: "avx2", 4: "baseline"}
"""Whose vectors have as many lanes as a block has images."""
FLOAT_BYTES = 4


def to_layout(x: Tensor, layout: Layout) -> Tensor:
    """What a kernel of a layout takes, from activations as torch has them.

    Parameters
    ----------
    x : Tensor
        [N, C, H, W] of any memory order, or [N, C].

    Returns
    -------
    Tensor
        `x` itself where it is in the layout already.
    """
    if x.dim() != 4:
        return x.contiguous()
    if layout in MEMORY_FORMATS:
        return x.contiguous(memory_format=MEMORY_FORMATS[layout])
    nhwc = x.is_contiguous(memory_format=torch.channels_last)
    return reorder(x, "nhwc" if nhwc else "nchw", layout)


def from_layout(y: Tensor, layout: Layout, images: int) -> Tensor:
    """Activations as torch has them, from what a kernel of a layout gives: blocked ones become contiguous."""
    return reorder(y, layout, "nchw", images=images) if layout in BLOCK_IMAGES else y


def reorder(x: Tensor, source: Layout, target: Layout, *, images: int | None = None) -> Tensor:
    """Copy activations from one layout to another, on all of torch's threads.

    Parameters
    ----------
    x : Tensor
        float32 where one of the layouts is blocked: [N, C, H, W], or [ceil(N / b), C, H, W, b] from a blocked one.
        Copied first where its memory order is not that of `source`.
    images : int or None
        N, where the source is blocked; None means that the last block is full.

    Returns
    -------
    Tensor
        In `target`; lanes beyond N of a blocked one are zero.

    Raises
    ------
    InputError
        If `x` is no such tensor.
    UnsupportedError
        If both layouts are blocked and differ, or this CPU has no vectors of a block's width.
    """
    if source == target:
        return x.contiguous(memory_format=MEMORY_FORMATS.get(source, torch.contiguous_format))
    if source in MEMORY_FORMATS and target in MEMORY_FORMATS:
        return x.contiguous(memory_format=MEMORY_FORMATS[target])
    block = _block(source, target)
    shape = _plain_shape(x, source, images)
    x = x.detach().contiguous(memory_format=MEMORY_FORMATS.get(source, torch.contiguous_format))
    y = empty_activation(shape, torch.float32, target)
    _native.reorder(
        isa=ISA_OF_BLOCK[block],
        source=native_layout(source),
        target=native_layout(target),
        n=shape[0],
        channels=shape[1],
        pixels=shape[2] * shape[3],
        x=x.data_ptr(),
        x_bytes=x.nbytes,
        y=y.data_ptr(),
        y_bytes=y.nbytes,
        threads=torch.get_num_threads(),
    )
    return y


def reorder_cost(shape: tuple[int, int, int, int], source: Layout, target: Layout) -> Cost:
    """Work of one reorder of float32 activations [N, C, H, W]: each is read once and written once, none computed.

    Between the layouts of networks it is torch's copy.

    Raises
    ------
    UnsupportedError
        If both layouts are blocked and differ.
    """
    n, channels, height, width = shape
    if source == target:
        return Cost(unit="fma_f32", flop=0.0, bytes_streamed=0.0, bytes_moved=0.0, tasks=1)
    blocks, parts = n, channels
    moved = 2.0 * math.prod(shape) * FLOAT_BYTES
    if source in BLOCK_IMAGES or target in BLOCK_IMAGES:
        block = _block(source, target)
        blocks = math.ceil(n / block)
        parts = math.ceil(channels / block) if "nhwc" in (source, target) else channels
        moved = float((n + blocks * block) * channels * height * width * FLOAT_BYTES)
    return Cost(unit="fma_f32", flop=0.0, bytes_streamed=moved, bytes_moved=moved, tasks=blocks * parts)


def _block(source: Layout, target: Layout) -> int:
    if source in BLOCK_IMAGES and target in BLOCK_IMAGES:
        raise UnsupportedError(f"no reorder leads from {source} to {target}; go through nchw or nhwc")
    block = BLOCK_IMAGES[source if source in BLOCK_IMAGES else target]
    if ISA_OF_BLOCK[block] not in _native.isa_list():
        raise UnsupportedError(f"blocks of {block} images need {ISA_OF_BLOCK[block]}, which this CPU lacks")
    return block


def _plain_shape(x: Tensor, source: Layout, images: int | None) -> tuple[int, int, int, int]:
    """[N, C, H, W] of the activations in `x`."""
    block = BLOCK_IMAGES.get(source)
    wanted = "[N, C, H, W]" if block is None else f"[ceil(N / {block}), C, H, W, {block}]"
    fits = x.dim() == 4 if block is None else x.dim() == 5 and x.shape[4] == block
    if not fits or x.dtype != torch.float32 or x.device.type != "cpu" or x.numel() == 0:
        raise InputError(
            f"reorder from {source} got {x.dtype} {list(x.shape)} on {x.device.type}; "
            f"it takes a torch.float32 {wanted} on cpu"
        )
    stored = x.shape[0] * (block or 1)
    n = stored if images is None else images
    if math.ceil(n / (block or 1)) != x.shape[0] or n < 1:
        raise InputError(f"reorder from {source} got {list(x.shape)}, which is not {images} images")
    return n, x.shape[1], x.shape[2], x.shape[3]
