"""Freed activations stay with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from sparseplan.kernels.keep_memory import keep_memory
{call}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):
    torch.ones(9, 1 << 20)
before = faults()
for _ in range(5):
    torch.ones(9, 1 << 20)
print(faults() - before)
"""


def _faults(call: str) -> int:
    """Of five tensors of 36 MB, one after the other, after some more: aligning the first few leaves crumbs behind."""
    code = FAULTS.format(call=call)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_tensors_are_used_again() -> None:
    assert _faults("assert keep_memory()") < 0.1 * _faults("pass")
