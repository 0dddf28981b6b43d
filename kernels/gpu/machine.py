"""What a GPU allows: the architectures whose code it runs, Triton, and torch's libraries of sparse products."""

from __future__ import annotations

import importlib.util

import torch

from ..errors import UnsupportedError
from ..spec import Machine

ARCHITECTURES = ((8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))
"""Compute capabilities that kernels ask for or are compiled for, oldest first."""
HOPPER_ALONE = "sm_90a"
"""What compute capability 9.0 has and no other, newer ones included: products of warpgroups."""
TRITON = "triton"
CUSPARSELT, CUTLASS = "aten::_cslt_sparse_mm", "aten::_sparse_semi_structured_linear"
"""torch's 2:4 products. CUTLASS's are for compute capability 8 alone (torch, aten/native/sparse/cuda)."""


def why_no_gpu() -> str | None:
    """Why no GPU can be used in this process, or None."""
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA; install a CUDA build of it"
    if not torch.cuda.is_available():
        return "torch sees no CUDA GPU here (no NVIDIA driver, or no device is visible)"
    return None


def detect_gpu() -> Machine:
    """What the first visible GPU allows.

    Raises
    ------
    UnsupportedError
        If there is none.
    """
    if reason := why_no_gpu():
        raise UnsupportedError(f"no GPU: {reason}; use the CPU, or run this on a machine with an NVIDIA GPU")
    return gpu_machine(
        torch.cuda.get_device_capability(),
        has_triton=importlib.util.find_spec(TRITON) is not None,
        has_cusparselt=torch.backends.cusparselt.is_available(),
    )


def gpu_machine(capability: tuple[int, int], *, has_triton: bool, has_cusparselt: bool) -> Machine:
    """The machine of a GPU of a compute capability, present or not."""
    isa = tuple(f"sm_{major}{minor}" for major, minor in ARCHITECTURES if (major, minor) <= capability)
    if capability == (9, 0):
        isa = (*isa, HOPPER_ALONE)
    libraries = ((CUSPARSELT, has_cusparselt and capability >= (8, 0)), (CUTLASS, capability[0] == 8))
    return Machine(
        isa=(*isa, TRITON) if has_triton else isa,
        torch_ops=tuple(name for name, present in libraries if present),
        device="cuda",
    )
