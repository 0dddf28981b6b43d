"""What this CPU and operating system allow: instruction sets and torch's library operators."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch  # before _native: the extension must share torch's OpenMP runtime

from . import _native
from .errors import InputError
from .spec import Machine

ISA_VARIABLE = "SPARSEPLAN_ISA"
"""Environment variable that caps the instruction sets, for tests and comparisons."""

CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux describes the caches of a core (Documentation/ABI/testing/sysfs-devices-system-cpu)."""
USUAL_CACHE_BYTES = {1: 32 * 1024, 2: 1024 * 1024, 3: 32 * 1024 * 1024}
"""Taken where the system says nothing: 32 KiB as on most CPUs, the 1 MiB of Zen 4 and Skylake-SP, and the
32 MiB that the cores of a Zen share."""

TORCH_OPS = (
    "mkldnn::_convolution_pointwise",
    "mkldnn::_reorder_convolution_weight",
    "mkldnn::_linear_pointwise",
    "mkldnn::_reorder_linear_weight",
    "mkl::_mkl_linear",
    "mkl::_mkl_reorder_linear_weight",
)
"""torch's operators of oneDNN and MKL that kernels use."""


def detect_machine(environment: Mapping[str, str] = os.environ) -> Machine:
    """Instruction sets that the CPU and the operating system allow, weakest first, and torch's library operators.

    Raises
    ------
    InputError
        If ``SPARSEPLAN_ISA`` names no instruction set of this machine.
    """
    isa = capped(tuple(_native.isa_list()), environment, of="this machine")
    return Machine(isa=isa, torch_ops=_torch_ops(), device="cpu")


def capped(isa: tuple[str, ...], environment: Mapping[str, str], *, of: str) -> tuple[str, ...]:
    """Instruction sets, weakest first, up to the one that the environment allows.

    Raises
    ------
    InputError
        If ``SPARSEPLAN_ISA`` names none of them.
    """
    cap = environment.get(ISA_VARIABLE)
    if cap is None:
        return isa
    if cap not in isa:
        raise InputError(
            f"environment variable {ISA_VARIABLE}={cap!r} names no instruction set of {of}; "
            f"allowed: {', '.join(isa)}; or unset it"
        )
    return isa[: isa.index(cap) + 1]


@cache
def cache_bytes(level: int, folder: Path = CACHE_FOLDER) -> int:
    """Size of a core's data or unified cache of level 1 to 3, in bytes; `USUAL_CACHE_BYTES` where unknown."""
    for index in sorted(folder.glob("index*")):
        try:
            found, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if found == str(level) and kind != "Instruction" and size.endswith("K") and size[:-1].isdigit():
            return int(size[:-1]) * 1024
    return USUAL_CACHE_BYTES[level]


def _torch_ops() -> tuple[str, ...]:
    libraries = {"mkldnn": torch.backends.mkldnn.is_available(), "mkl": torch.backends.mkl.is_available()}
    found = []
    for operator in TORCH_OPS:
        library, name = operator.split("::")
        if libraries[library] and hasattr(getattr(torch.ops, library), name):
            found.append(operator)
    return tuple(found)
