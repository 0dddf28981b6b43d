"""Activations to the bytes of int8 kernels and back in one pass, as `quantise` and `dequantise` say."""

from __future__ import annotations

import torch
from torch import Tensor  # before _native: the extension must share torch's OpenMP runtime

from . import _native
from .cpu import detect_machine
from .quantisation import dequantise, quantise

ISA = "avx512"
"""Of the native passes; every int8 kernel needs more than that."""
FEW = 1 << 15
"""Values that one thread is through with before others would have started."""


def store_bytes(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """`quantise` of a tensor on the CPU; the memory order stays."""
    if not _has_native(x):
        return quantise(x, scale, zero_point)
    x = _whole(x.float())
    y = torch.empty_like(x, dtype=torch.uint8)
    _native.store_bytes(
        isa=ISA,
        x=x.data_ptr(),
        y=y.data_ptr(),
        count=x.numel(),
        per_scale=1.0 / scale,
        zero_point=zero_point,
        threads=_threads(x),
    )
    return y


def load_bytes(stored: Tensor, scale: float, zero_point: int) -> Tensor:
    """`dequantise` of a tensor on the CPU; the memory order stays."""
    if not _has_native(stored):
        return dequantise(stored, scale, zero_point)
    stored = _whole(stored)
    y = torch.empty_like(stored, dtype=torch.float32)
    _native.load_bytes(
        isa=ISA,
        x=stored.data_ptr(),
        y=y.data_ptr(),
        count=stored.numel(),
        scale=scale,
        zero_point=zero_point,
        threads=_threads(stored),
    )
    return y


def _has_native(x: Tensor) -> bool:
    return x.device.type == "cpu" and ISA in detect_machine().isa


def _whole(x: Tensor) -> Tensor:
    """The same values without gaps, in their memory order where it is one of torch's two."""
    x = x.detach()
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _threads(x: Tensor) -> int:
    return torch.get_num_threads() if x.numel() > FEW else 1
