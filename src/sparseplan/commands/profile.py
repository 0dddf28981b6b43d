"""``sparseplan profile``: measure this machine."""

from __future__ import annotations

from pathlib import Path

import torch

from ..kernels.cpu import detect_machine
from ..kernels.documents import require_writable
from ..kernels.errors import InputError, UnsupportedError
from ..kernels.progress import Progress, silent
from ..kernels.registry import REGISTRY
from ..profiles.profile_machine import profile_machine
from ..profiles.schema import Budget, MachineProfile
from ..profiles.store import save_profile

DEFAULT_OUT = Path("profile.json")


def profile(
    out: str | Path = DEFAULT_OUT,
    budget: Budget = "standard",
    *,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress = silent,
) -> MachineProfile:
    """Measure ceilings and kernels of this machine and write its profile.

    Parameters
    ----------
    out : path
        Where the profile is written (JSON).
    budget : {"quick", "standard", "full"}
        At most 60 s, 5 min, 30 min.
    device : {"cpu", "cuda"}
    threads : int, optional
        Threads that kernels use; all usable cores when left out.

    Raises
    ------
    InputError
        If the output cannot be written or the thread count is not possible.
    UnsupportedError
        If the device is not there.
    """
    if device != "cpu":
        raise UnsupportedError(_why_no_cuda())
    require_writable(Path(out))
    result = profile_machine(
        budget=budget,
        threads=usable_threads(threads),
        machine=detect_machine(),
        registry=REGISTRY,
        progress=progress,
    )
    save_profile(Path(out), result)
    return result


def usable_threads(threads: int | None) -> int:
    """The thread count asked for, or all that torch may use.

    Raises
    ------
    InputError
        If it is below 1 or above the number of usable cores.
    """
    available = torch.get_num_threads()
    if threads is None:
        return available
    if not 1 <= threads <= available:
        raise InputError(f"--threads {threads}: allowed is 1 to {available}, the usable cores of this machine")
    return threads


def _why_no_cuda() -> str:
    if not torch.cuda.is_available():
        return "--device cuda: torch sees no CUDA GPU here (no driver, or a CPU-only torch); use --device cpu"
    return "--device cuda: this version of sparseplan has no GPU kernels to profile; use --device cpu"
