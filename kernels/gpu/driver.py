"""Load machine code into a GPU and launch it, through CUDA's driver, beside whatever torch runs there."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedError

DRIVER = "libcuda.so.1"
MOST_DYNAMIC_SHARED_BYTES = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES of the driver's CUfunction_attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A function in a GPU's memory.

    Attributes
    ----------
    driver : ctypes.CDLL
        CUDA's driver, or what a test puts in its place.
    """

    driver: Any
    function: ctypes.c_void_p
    threads: int
    shared_bytes: int

    def launch(self, blocks: int, tensors: Sequence[Tensor | None], values: ctypes.Structure) -> None:
        """Run on torch's current stream: with the tensors' places, None being a null pointer, and a structure.

        Raises
        ------
        UnsupportedError
            If the driver refuses.
        """
        places = [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]
        taken = [*places, values]
        arguments = (ctypes.c_void_p * len(taken))(*map(ctypes.addressof, taken))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        sizes = (blocks, 1, 1, self.threads, 1, 1, self.shared_bytes)
        _checked(self.driver, self.driver.cuLaunchKernel(self.function, *sizes, stream, arguments, None))


def load_program(code: bytes, name: str, *, threads: int, shared_bytes: int, driver: Any = None) -> Program:
    """Load machine code into the GPU that is current.

    Parameters
    ----------
    code : bytes
        As `nvrtc.compile_cuda` makes it.
    name : str
        Of the function in it.
    threads, shared_bytes : int
        Of a block.

    Raises
    ------
    UnsupportedError
        If there is no driver, or it refuses the code.
    """
    if driver is None:
        try:
            driver = ctypes.CDLL(DRIVER)
        except OSError as failure:
            raise UnsupportedError(f"{DRIVER} cannot be loaded ({failure}); install NVIDIA's driver") from None
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _checked(driver, driver.cuModuleLoadData(ctypes.byref(module), code))
    _checked(driver, driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
    _checked(driver, driver.cuFuncSetAttribute(function, MOST_DYNAMIC_SHARED_BYTES, shared_bytes))
    return Program(driver=driver, function=function, threads=threads, shared_bytes=shared_bytes)


def _checked(driver: Any, status: int) -> None:
    if status:
        said = ctypes.c_char_p()
        driver.cuGetErrorString(status, ctypes.byref(said))
        raise UnsupportedError(f"CUDA's driver refuses: {(said.value or b'an unknown error').decode()} ({status})")
