"""Triton's code without a GPU: interpreted against the reference, in a process that interprets from its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DEVICE_TESTS = Path(__file__).parent / "device"


def test_device_code_in_the_interpreter(triton_environment: dict[str, str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(DEVICE_TESTS)],
        env=triton_environment | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
