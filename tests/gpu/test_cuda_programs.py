"""CUDA C++ compiled for real architectures without a GPU, and loaded and launched through a driver that writes down."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseplan.kernels.errors import UnsupportedError
from sparseplan.kernels.gpu import driver, nvrtc
from sparseplan.kernels.gpu.compile_ahead import disassembler, resources
from sparseplan.kernels.gpu.driver import load_program
from sparseplan.kernels.gpu.nvrtc import compile_cuda, find_nvrtc
from sparseplan.kernels.gpu.sas_sparse import ROWS, SOURCES, THREADS, Form, Layer, defines
from sparseplan.kernels.problem import Dtype

TARGETS: tuple[tuple[Form, int, Dtype, int, str], ...] = (
    ("mma_sp", 256, "bfloat16", 80, "80"),
    ("mma_sp", 128, "float16", 80, "80"),
    ("wgmma_sp", 256, "bfloat16", 90, "90a"),
    ("wgmma_sp", 128, "float16", 90, "90a"),
)
REGISTERS = 65536
"""Of a multiprocessor, since compute capability 8.0 (CUDA C++ programming guide, technical specifications)."""

needs_nvrtc = pytest.mark.skipif(find_nvrtc() is None, reason="needs NVRTC: pip install nvidia-cuda-nvrtc")


@needs_nvrtc
@pytest.mark.parametrize(("form", "rows", "dtype", "architecture", "name"), TARGETS)
def test_sas_products_fit_the_device(
    form: Form, rows: int, dtype: Dtype, architecture: int, name: str, tmp_path: Path
) -> None:
    pytest.importorskip("triton", reason="its wheel brings the disassembler")
    code = compile_cuda(SOURCES, defines=defines(rows, dtype, form, architecture), architecture=name)
    registers, stack_bytes = resources(code)
    assert stack_bytes == 0
    # Two blocks share a multiprocessor, but for the largest tiles.
    assert registers * THREADS * (1 if rows == 256 else 2) <= REGISTERS
    if rows == 256:
        code_lines = _instructions(code, tmp_path)
        assert any(("GMMA.SP" if form == "wgmma_sp" else "HMMA.SP") in line for line in code_lines)
        # A fence as far as other multiprocessors would stop this one at every step.
        assert not any("MEMBAR.ALL.GPU" in line for line in code_lines)
        # Products of warpgroups that the assembler had to wait for one by one would show more waits.
        assert sum("WARPGROUP.DEPBAR" in line for line in code_lines) == (form == "wgmma_sp")


@needs_nvrtc
@pytest.mark.parametrize("rows", ROWS["wgmma_sp"])
def test_operands_of_running_products_keep_their_registers(rows: int, tmp_path: Path) -> None:
    """Products of warpgroups read registers until they are waited for, which no compiler sees in inline PTX."""
    pytest.importorskip("triton", reason="its wheel brings the disassembler")
    code = compile_cuda(SOURCES, defines=defines(rows, "bfloat16", "wgmma_sp", 90), architecture="90a")
    operands: set[int] = set()
    for line in _instructions(code, tmp_path):
        name, registers = line.split()[0], [int(number) for number in re.findall(r"\bR(\d+)", line)]
        if name.startswith("HGMMA"):
            _, first, _, places = registers
            operands |= {*range(first, first + 4), places}
        elif name.startswith("WARPGROUP.DEPBAR"):
            assert len(operands) == rows // 128 * 9
            return
        elif operands and registers and not name.startswith(("LDGSTS", "ST")):
            written = range(registers[0], registers[0] + (4 if name.startswith("LDSM") else 2 if "WIDE" in name else 1))
            assert operands.isdisjoint(written), line
    raise AssertionError("no wait for products")


def _instructions(code: bytes, folder: Path) -> list[str]:
    (folder / "program.cubin").write_bytes(code)
    command = [disassembler(), "-sass", str(folder / "program.cubin")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # /*0010*/ @P0 NAME operands ; /* the instruction's bits */
    return [match[1] for match in re.finditer(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][^;]*);", told)]


@needs_nvrtc
def test_what_nvrtc_complains_of_is_said() -> None:
    with pytest.raises(UnsupportedError, match=r"cannot compile sas_product.cu for sm_80: .*error"):
        compile_cuda(SOURCES, defines={"WARPGROUPS": 0, "ROWS": 64}, architecture="80")


def test_no_nvrtc_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nvrtc._library.cache_clear()
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: None)
    with pytest.raises(UnsupportedError, match="a CUDA build of torch brings it"):
        compile_cuda(SOURCES, defines={}, architecture="80")


class WritingDriver:
    """Keeps what it is asked, and refuses one call."""

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.asked: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.asked.append((name, arguments))
            if name == "cuLaunchKernel":
                places = ctypes.cast(arguments[9], ctypes.POINTER(ctypes.c_void_p))
                self.pointers = [ctypes.c_void_p.from_address(places[i]).value for i in range(2)]
                self.layer = Layer.from_address(places[2])
                self.c_in = self.layer.c_in
            return 1 if name == self.refused else 0

        return call


def test_a_program_is_launched_with_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = type("Stream", (), {"cuda_stream": 7})
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    there = WritingDriver()
    program = load_program(b"code", "sas_product", threads=256, shared_bytes=1000, driver=there)
    x = torch.zeros(3)
    program.launch(5, (x, None), Layer(1, 2))
    assert [name for name, _ in there.asked] == [
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuFuncSetAttribute",
        "cuLaunchKernel",
    ]
    assert there.asked[-1][1][1:8] == (5, 1, 1, 256, 1, 1, 1000)
    assert there.pointers == [x.data_ptr(), None]
    assert there.c_in == 2


def test_what_the_driver_refuses_is_said() -> None:
    with pytest.raises(UnsupportedError, match="driver refuses: an unknown error"):
        load_program(b"", "sas_product", threads=1, shared_bytes=0, driver=WritingDriver("cuModuleLoadData"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a driver")
def test_no_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "DRIVER", "libabsent.so")
    with pytest.raises(UnsupportedError, match="install NVIDIA's driver"):
        load_program(b"", "sas_product", threads=1, shared_bytes=0)
