"""Move some of the channels of channels_last activations: what a compacted layer reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import _native
from .cpu import detect_machine

VECTOR_ISA = "avx512bf16"
"""Has permutations of values of 1, 2 and 4 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptChannels:
    """The channels that a smaller layer keeps of a larger one, ready to be moved."""

    total: int
    kept: int
    native: _native.Channels


def keep_channels(total: int, kept: Tensor, dtype: torch.dtype) -> KeptChannels:
    """Prepare the ascending indices `kept` [k] of `total` channels for activations of `dtype`."""
    native = _native.Channels(
        isa=VECTOR_ISA if VECTOR_ISA in detect_machine().isa else "baseline",
        total=total,
        index=kept.tolist(),
        value_bytes=dtype.itemsize,
    )
    return KeptChannels(total=total, kept=len(kept), native=native)


def take_channels(channels: KeptChannels, x: Tensor) -> Tensor:
    """[N, C, H, W] channels_last or [N, C] to the kept channels of it, in the same memory order."""
    x = x.contiguous(memory_format=_order(x.dim()))
    shape = (x.shape[0], channels.kept, *x.shape[2:])
    taken = torch.empty(shape, dtype=x.dtype, memory_format=_order(x.dim()))
    channels.native.gather(x.data_ptr(), x.nbytes, taken.data_ptr(), taken.nbytes, torch.get_num_threads())
    return taken


def put_channels(channels: KeptChannels, y: Tensor, constant: Tensor) -> Tensor:
    """The inverse of `take_channels`: channels that are not kept get their value of `constant` [C]."""
    y = y.contiguous(memory_format=_order(y.dim()))
    shape = (y.shape[0], channels.total, *y.shape[2:])
    full = torch.empty(shape, dtype=y.dtype, memory_format=_order(y.dim()))
    channels.native.scatter(
        y.data_ptr(),
        y.nbytes,
        constant.data_ptr(),
        constant.nbytes,
        full.data_ptr(),
        full.nbytes,
        torch.get_num_threads(),
    )
    return full


def _order(dimensions: int) -> torch.memory_format:
    return torch.channels_last if dimensions == 4 else torch.contiguous_format
