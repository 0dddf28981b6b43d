"""What many tests need: the shared data, where it is present."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder beside the repository, not found at {SHARED.name}/")
    return SHARED


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Kernels run on one thread; a test may set others, which end with it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
