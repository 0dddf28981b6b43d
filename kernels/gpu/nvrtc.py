"""Compile CUDA C++ for an architecture with NVRTC, which every CUDA build of torch brings along: no nvcc, no GPU."""

from __future__ import annotations

import ctypes
import site
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import torch

from ..errors import UnsupportedError

SOURCES = Path(__file__).parent / "cuda"
NAME = "libnvrtc.so"
STANDARD = "c++17"


def compile_cuda(sources: tuple[str, ...], *, defines: Mapping[str, object], architecture: str) -> bytes:
    """Machine code of source files of this package, put together in their order.

    Parameters
    ----------
    defines : mapping
        Macros that the sources take.
    architecture : str
        Such as ``80`` or ``90a``.

    Raises
    ------
    UnsupportedError
        If NVRTC is not found, or cannot compile the sources; the message holds its first complaint.
    """
    nvrtc = _library()
    text = "".join(f"#define {name} {value}\n" for name, value in defines.items())
    text += "".join((SOURCES / name).read_text(encoding="utf-8") for name in sources)
    program = ctypes.c_void_p()
    _checked(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), sources[-1].encode(), 0, None, None))
    try:
        options = [f"--gpu-architecture=sm_{architecture}".encode(), f"--std={STANDARD}".encode()]
        if nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)):
            log = _bytes_of(nvrtc, program, "ProgramLog").decode(errors="replace")
            first = next((line for line in log.splitlines() if "error" in line), log[:200])
            raise UnsupportedError(f"NVRTC cannot compile {sources[-1]} for sm_{architecture}: {first}")
        return _bytes_of(nvrtc, program, "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def find_nvrtc() -> Path | None:
    """Where the library lies: that of torch's own CUDA where there are several, or None where there is none."""
    wanted = (torch.version.cuda or "").partition(".")[0]
    found = sorted(_libraries(), key=lambda path: (path.name.endswith(f".so.{wanted}"), path.name))
    return found[-1] if found else None


def _libraries() -> Iterator[Path]:
    for folder in (*site.getsitepackages(), str(Path(torch.__file__).parents[1])):
        # Wheels of CUDA 12 and 13 have other folders.
        yield from Path(folder).glob(f"nvidia/*/lib/{NAME}.*")
    yield from Path(torch.__file__).parent.glob(f"lib/{NAME}.*")
    for home in (Path("/usr/local/cuda/lib64"), Path("/usr/lib/x86_64-linux-gnu")):
        yield from home.glob(f"{NAME}.*")


@cache
def _library() -> ctypes.CDLL:
    major = (torch.version.cuda or "").partition(".")[0]
    # Where it is not found, the system's loader may know it, or torch may have loaded it.
    wanted = find_nvrtc() or f"{NAME}.{major}"
    try:
        return ctypes.CDLL(str(wanted))
    except OSError:
        raise UnsupportedError(
            "NVRTC, the CUDA compiler at run time, is not installed; a CUDA build of torch brings it"
        ) from None


def _bytes_of(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _checked(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    taken = ctypes.create_string_buffer(size.value)
    _checked(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, taken))
    return taken.raw


def _checked(nvrtc: ctypes.CDLL, status: int) -> None:
    if status:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise UnsupportedError(f"NVRTC failed: {nvrtc.nvrtcGetErrorString(status).decode()}")
