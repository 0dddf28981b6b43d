"""Freed activations stay with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, numpy
from sparseplan.kernels.keep_memory import keep_memory
{call}
for _ in range(12):
    numpy.ones(9 << 20, dtype=numpy.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    numpy.ones(9 << 20, dtype=numpy.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(call: str) -> int:
    """Pages handed over for five arrays of 36 MB, one after the other, after some more."""
    code = FAULTS.format(call=call)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_memory_is_used_again() -> None:
    without = _faults("pass")
    # Huge pages, where numpy asks for them, are handed over in pieces of 2 MB.
    assert without >= 5 * 16
    assert _faults("assert keep_memory()") < 0.1 * without
