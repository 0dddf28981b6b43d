"""These tests run on a GPU, or on the CPU in a process of Triton's interpreter (see `test_interpreted.py`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from kernel_agreement import fill_new_memory_with_nan

sys.path.insert(0, str(Path(__file__).parents[1]))

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if IS_INTERPRETED or torch.cuda.is_available() else ["test_*.py"]


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cpu" if IS_INTERPRETED else "cuda")


@pytest.fixture(autouse=True)
def _fresh_memory_holds_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_new_memory_with_nan(monkeypatch)
