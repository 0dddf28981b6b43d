"""Marks of the GPU tests, and the environment in which Triton's code is compiled or interpreted."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from sparseplan.kernels.gpu.machine import why_no_gpu


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_no_gpu()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("needs_gpu"):
            item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU: {reason}"))


@pytest.fixture(scope="session")
def triton_environment() -> dict[str, str]:
    """The environment of a process that uses Triton; the test skips where it is not installed."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs Triton: pip install 'sparseplan[gpu]'")
    # Triton 3.9 warns unless this is said; 1 is what it does.
    return os.environ | {"TRITON_DEFAULT_FP_FUSION": "1", "OMP_NUM_THREADS": str(min(torch.get_num_threads(), 2))}
