"""Memory that tensors free."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparseplan.kernels.host_memory import can_keep_memory

CALLS = """
import resource, sys, torch
from sparseplan.kernels.host_memory import keep_memory
if sys.argv[1] == "kept":
    assert keep_memory()
def call():
    return torch.ones(12 << 20).sum()
# Small blocks that come to lie above a freed one make the heap grow a few times.
for _ in range(10):
    call()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    call()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(memory: str) -> int:
    done = subprocess.run([sys.executable, "-c", CALLS, memory], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not can_keep_memory(), reason="this C library cannot be told to keep memory")
def test_kept_memory_is_not_mapped_again() -> None:
    assert _page_faults("kept") < 200 < _page_faults("returned")
