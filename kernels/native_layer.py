"""What the native kernels share: instruction sets, checks of weights and inputs, and the call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .check import check_tensor
from .dense import TORCH_DTYPES
from .layout import activation_shape, check_residual, empty_activation, memory_format
from .pattern import parse_pattern
from .problem import Dtype, Op, Problem
from .spec import Layout, Machine

FLOAT_BYTES = 4
NATIVE_PATTERNS = ("unstructured", "block", "n:m", "filter", "channel", "shape", "filter2d")
"""Element-wise packing skips every zero, whatever put it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionSet:
    """Width of a vector in activations, accumulators of the inner kernel (of one output channel, and of each of four),
    and whether vector loads can be cut short.

    The numbers are those of ``native/simd/*.h``; packing refuses others.
    """

    name: str
    lanes: int
    max_tile: int
    guarded_loads: bool
    max_quad: int
    dtype: Dtype = "float32"


INSTRUCTION_SETS = (
    InstructionSet(name="avx512", lanes=16, max_tile=28, guarded_loads=True, max_quad=6),
    InstructionSet(name="avx2", lanes=8, max_tile=13, guarded_loads=True, max_quad=3),
    InstructionSet(name="baseline", lanes=4, max_tile=12, guarded_loads=False, max_quad=2),
)
"""Of float32 kernels."""
HALF_PRECISION = InstructionSet(
    name="avx512fp16", lanes=32, max_tile=28, guarded_loads=True, max_quad=0, dtype="float16"
)


class NativeLayer(Protocol):
    """Packed weights on the native side."""

    def run(self, x: int, x_bytes: int, residual: int, y: int, y_bytes: int, threads: int) -> None: ...


def run_native(
    problem: Problem, layer: NativeLayer, x: Tensor, residual: Tensor | None = None, *, layout: Layout = "nchw"
) -> Tensor:
    """Run packed weights on all of torch's threads.

    Parameters
    ----------
    x : Tensor
        [N, C, H, W] or [N, C], or blocked; copied first where its memory order is not that of the layout.
    residual : Tensor or None
        Like the output; added before the ReLU.

    Raises
    ------
    InputError
        If `x` has another shape or dtype than the problem, or `residual` another shape, dtype or memory order than the
        output.
    """
    dtype = TORCH_DTYPES[problem.dtype]
    check_tensor("input", x, activation_shape(problem.input_shape, layout), dtype)
    added = 0
    if residual is not None:
        check_residual(residual, problem.output_shape, dtype, layout)
        added = residual.data_ptr()
    y = empty_activation(problem.output_shape, dtype, layout)
    x = x.contiguous(memory_format=memory_format(x.dim(), layout))
    layer.run(x.data_ptr(), x.nbytes, added, y.data_ptr(), y.nbytes, torch.get_num_threads())
    return y


def why_native_unsupported(problem: Problem, machine: Machine, *, op: Op, isa: InstructionSet) -> str | None:
    """The reason why no native kernel of an instruction set can run a problem, or None."""
    if problem.op != op:
        return f"runs {op}, not {problem.op}"
    if problem.dtype != isa.dtype:
        return f"computes in {isa.dtype}, not {problem.dtype}"
    if isa.name not in machine.isa:
        return f"needs {isa.name}, this machine allows {', '.join(machine.isa) or 'no CPU instruction set'}"
    pattern = parse_pattern(problem.pattern)
    if pattern.is_dense:
        return "pattern 'dense' leaves nothing to skip"
    foreign = [kind for kind in pattern.kinds if kind not in NATIVE_PATTERNS]
    if foreign:
        return f"skips zero weights in {', '.join(NATIVE_PATTERNS)}, not {', '.join(foreign)} in {problem.pattern!r}"
    return None


def to_numpy(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a float32 tensor as a contiguous array."""
    values: NDArray[np.float32] = tensor.detach().cpu().contiguous().numpy()
    return values
