"""Compile the device code of a product for an architecture, without a GPU, and say what it takes of the device."""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UnsupportedError
from ..problem import Dtype, Problem
from . import direct_convolution
from .gather_product import Innermost, constants, tile_of

POINTERS: dict[Dtype, str] = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16"}
VECTOR_BYTES = 16
"""Triton assumes what it sees at a launch: tensors at multiples of so many bytes, and sizes that divide by 16."""
WARP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What a kernel takes, as the assembler and its disassembler report it.

    Attributes
    ----------
    registers, shared_bytes, stack_bytes : int
        Registers and stack (spilled registers among it) of a thread, shared memory of a block of threads.
    matrix_unit : {"wgmma", "mma", "none"}
        Instructions that the PTX multiplies with.
    asynchronous_copies : bool
        Whether loads run ahead of the products (``cp.async``, or the bulk copies of Hopper).
    ptx : str
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    matrix_unit: str
    asynchronous_copies: bool
    ptx: str


def compile_product(
    problem: Problem,
    *,
    architecture: int,
    innermost: Innermost = "channels",
    relu: bool = True,
    has_bias: bool = True,
    adds: bool = False,
) -> Compiled:
    """Compile `triton_gather_product` for a problem and, say, architecture 90.

    Raises
    ------
    UnsupportedError
        If Triton runs interpreted in this process, which then cannot compile.
    """
    values, tile = POINTERS[problem.dtype], tile_of(problem, innermost)
    pointers = dict.fromkeys(("x", "values", "residual", "y"), values)
    pointers |= dict.fromkeys(("starts", "reach", "bounds", "order"), "*i32") | {"bias": "*fp32"}
    sizes = {
        "turned_stride": tile.pixels,
        "c_in": problem.c_in,
        "k_out": problem.c_out,
        "k_group": problem.c_out // problem.groups,
    }
    return _compile(
        "triton_gather_product.gather_product",
        pointers,
        constants(problem, tile, relu=relu, has_bias=has_bias, adds=adds, innermost=innermost),
        multiples={name for name, size in sizes.items() if size % VECTOR_BYTES == 0},
        architecture=architecture,
        options={"num_warps": tile.warps, "num_stages": tile.stages},
    )


def compile_direct(problem: Problem, *, architecture: int) -> Compiled:
    """Compile `triton_direct_convolution` for a problem, with bias, residual and ReLU; see `compile_product`."""
    pointers = dict.fromkeys(("x", "values", "bias", "residual", "y"), "*fp32")
    pointers |= dict.fromkeys(("starts", "reach", "bounds", "order"), "*i32")
    return _compile(
        "triton_direct_convolution.direct_convolution",
        pointers,
        direct_convolution.constants(problem, relu=True, has_bias=True, adds=True),
        multiples=set(),
        architecture=architecture,
        options={"num_warps": direct_convolution.warps_of(direct_convolution.tile_pixels(problem))},
    )


def _compile(
    name: str,
    pointers: Mapping[str, str],
    fixed: Mapping[str, Any],
    *,
    multiples: Collection[str],
    architecture: int,
    options: Mapping[str, int],
) -> Compiled:
    """Compile a function of this package.

    Parameters
    ----------
    name : str
        ``module.function``.
    pointers, fixed : mapping
        Types of the tensors, and values of the compile-time constants, by argument; all others are 32-bit integers.
    multiples : collection of str
        Those of the integers that are multiples of 16.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if triton.knobs.runtime.interpret:
        raise UnsupportedError("TRITON_INTERPRET is set: this process interprets kernels; unset it to compile them")
    module, _, called = name.partition(".")
    function = getattr(importlib.import_module(f"{__package__}.{module}"), called)
    signature = {arg: "constexpr" if arg in fixed else pointers.get(arg, "i32") for arg in function.arg_names}
    aligned = [arg for arg in signature if arg in pointers or arg in multiples]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs=dict(fixed),
        attrs={(function.arg_names.index(arg),): [["tt.divisibility", VECTOR_BYTES]] for arg in aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, WARP), options=dict(options))
    registers, stack_bytes = resources(compiled.asm["cubin"])
    ptx: str = compiled.asm["ptx"]
    return Compiled(
        registers=registers,
        shared_bytes=compiled.metadata.shared,
        stack_bytes=stack_bytes,
        matrix_unit="wgmma" if "wgmma.mma_async" in ptx else "mma" if "mma.sync" in ptx else "none",
        asynchronous_copies="cp.async" in ptx,
        ptx=ptx,
    )


def resources(cubin: bytes) -> tuple[int, int]:
    """(registers, stack bytes) of a thread of machine code.

    Raises
    ------
    UnsupportedError
        If the disassembler reports them in another form than expected.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        told = subprocess.run(
            [disassembler(), "--dump-resource-usage", str(path)], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", told)
    if found is None:
        raise UnsupportedError(f"cuobjdump of this Triton reports resources in a form not known here: {told[:200]!r}")
    return int(found[1]), int(found[2])


def disassembler() -> Path:
    """cuobjdump, which Triton's wheel brings along."""
    import triton

    return Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
