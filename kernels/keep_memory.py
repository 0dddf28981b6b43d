"""Have the C library keep the memory of freed activations."""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of mallopt, from glibc's malloc.h."""


@cache
def keep_memory() -> bool:
    """Tell glibc's malloc to reuse what was freed instead of giving it back to the system; False where there is none.

    By default each activation above 32 MB is mapped anew in every forward pass, and the top of the heap comes and goes:
    the system clears pages and hands them over one by one. That costs a dense ResNet-50 at batch 16 a twentieth of its
    time, a pruned one a sixth, and a MobileNetV2 at batch 8 a third (two cores of a Zen 5). It holds for the whole
    process and for good: a process then keeps the most memory that it has used. Everything here that takes times calls
    it, so that rivals have the same memory, and so does what runs planned networks.

    References
    ----------
    mallopt(3): M_TRIM_THRESHOLD of -1 keeps the top of the heap, M_MMAP_MAX of 0 takes everything from it.
    """
    if not can_keep_memory():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, -1)) and bool(mallopt(_MMAP_MAX, 0))


def can_keep_memory() -> bool:
    """Whether the C library can be told, as glibc can."""
    return hasattr(ctypes.CDLL(None), "mallopt")
