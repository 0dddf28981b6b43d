"""Tensors between pages that may not be touched: a read or write beyond them ends the process, or shows."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor

PAGE = mmap.PAGESIZE
CANARY = 0xA5
"""What lies between a tensor and the page on its other side."""

Place = Literal["end", "start"]
"""Which end of the tensor touches a forbidden page; the rest of the page on the other side holds canaries."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_PROT_NONE = 0


class GuardedMemory:
    """Tensors in pages of their own. They live as long as this object; `check` looks at the canaries of all."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._kept: list[tuple[mmap.mmap, Any, int, int]] = []

    def copy(self, tensor: Tensor) -> Tensor:
        """The tensor, values and strides alike, at the edge of a forbidden page."""
        guarded = self.like(tensor)
        guarded.copy_(tensor)
        return guarded

    def like(self, tensor: Tensor) -> Tensor:
        """A tensor of the same sizes, strides and dtype, full of NaN (255 for bytes).

        Raises
        ------
        ValueError
            If the tensor has gaps: bytes inside it that no element covers would go unguarded.
        """
        size = tensor.numel() * tensor.element_size()
        span = 1 + sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
        if span != tensor.numel():
            raise ValueError(f"strides {tensor.stride()} of shape {tuple(tensor.shape)} leave gaps")
        inner = -(-size // PAGE) * PAGE
        pages = mmap.mmap(-1, inner + 2 * PAGE)
        whole = (ctypes.c_uint8 * len(pages)).from_buffer(pages)
        base = ctypes.addressof(whole)
        ctypes.memset(base + PAGE, CANARY, inner)
        for forbidden in (base, base + PAGE + inner):
            if _libc.mprotect(forbidden, PAGE, _PROT_NONE) != 0:
                raise OSError(ctypes.get_errno(), "mprotect")
        start = PAGE if self._place == "start" else PAGE + inner - size
        self._kept.append((pages, whole, start, size))
        window = (ctypes.c_uint8 * size).from_buffer(pages, start)
        flat = torch.frombuffer(window, dtype=tensor.dtype)
        flat.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)
        return flat.as_strided(tensor.shape, tensor.stride())

    def check(self) -> None:
        """Raise AssertionError where something was written beside a tensor."""
        for pages, _, start, size in self._kept:
            beside = {"before": pages[PAGE:start], "after": pages[start + size : len(pages) - PAGE]}
            for where, content in beside.items():
                changed = [at for at, byte in enumerate(content) if byte != CANARY]
                assert not changed, f"{len(changed)} bytes {where} a tensor of {size} bytes were overwritten"

    @contextmanager
    def for_outputs(self) -> Iterator[None]:
        """Let what `torch.empty` gives be such memory: the outputs of kernels."""
        plain = torch.empty

        def guarded(*arguments: Any, **options: Any) -> Tensor:
            return self.like(plain(*arguments, **options))

        with patch.object(torch, "empty", guarded):
            yield
