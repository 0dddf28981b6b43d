"""Keep native code from writing on standard output: HiGHS prints a line of its own where it mends a solution."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STDOUT = 1


@contextmanager
def silent_stdout() -> Iterator[None]:
    """Send what is written to the file descriptor of standard output nowhere, C's buffers included."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    kept = os.dup(STDOUT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STDOUT)
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, STDOUT)
        os.close(kept)
        os.close(nowhere)
