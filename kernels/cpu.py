"""What this CPU and operating system allow: instruction sets and torch's library operators."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch  # before _native: the extension must share torch's OpenMP runtime

from . import _native
from .errors import InputError
from .spec import Machine

ISA_VARIABLE = "SPARSEPLAN_ISA"
"""Environment variable that caps the instruction sets, for tests and comparisons."""

_MKLDNN_OPS = (
    "_convolution_pointwise",
    "_reorder_convolution_weight",
    "_linear_pointwise",
    "_reorder_linear_weight",
)


def detect_machine(environment: Mapping[str, str] = os.environ) -> Machine:
    """Instruction sets that the CPU and the operating system allow, weakest first, and torch's library operators.

    Raises
    ------
    InputError
        If ``SPARSEPLAN_ISA`` names no instruction set of this machine.
    """
    isa = tuple(_native.isa_list())
    cap = environment.get(ISA_VARIABLE)
    if cap is not None:
        if cap not in isa:
            raise InputError(
                f"environment variable {ISA_VARIABLE}={cap!r} names no instruction set of this machine; "
                f"allowed: {', '.join(isa)}; or unset it"
            )
        isa = isa[: isa.index(cap) + 1]
    return Machine(isa=isa, torch_ops=_torch_ops(), device="cpu")


def _torch_ops() -> tuple[str, ...]:
    if not torch.backends.mkldnn.is_available():
        return ()
    return tuple(f"mkldnn::{name}" for name in _MKLDNN_OPS if hasattr(torch.ops.mkldnn, name))
