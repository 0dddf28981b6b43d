"""The CUDA C++ of SAS layers as a CPU runs it: the same source, with the device's units emulated."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sparseplan.kernels.gpu.nvrtc import SOURCES

HERE = Path(__file__).parent


def build_emulation(folder: Path) -> ctypes.CDLL:
    """Compile the source, in all its forms, for this CPU."""
    library = folder / "emulated_sas.so"
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, "-std=c++20", "-O1", "-Wall", "-shared", "-fPIC", f"-I{SOURCES}", "-o", str(library)]
    subprocess.run([*command, str(HERE / "emulated_sas.cpp")], check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(library))


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedProgram:
    """In the place of `driver.Program`.

    Attributes
    ----------
    late : bool
        Whether copies and products that run ahead are made as late as they may be, or at once.
    """

    library: ctypes.CDLL
    form: str
    rows: int
    dtype: torch.dtype
    late: bool
    seed: int = 0

    def launch(self, blocks: int, tensors: Sequence[Tensor | None], values: ctypes.Structure) -> None:
        assert not any(each.data_ptr() % 16 for each in tensors if each is not None)
        places = (ctypes.c_void_p * len(tensors))(*(None if each is None else each.data_ptr() for each in tensors))
        kind = (self.form == "wgmma_sp", self.rows, self.dtype == torch.bfloat16, self.late)
        failed = self.library.sas_product(*kind, blocks, ctypes.byref(values), places, self.seed)
        assert failed == 0, "threads were left waiting" if failed == 1 else "no such form"
