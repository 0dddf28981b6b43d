"""What the native kernels share: instruction sets, checks of weights and inputs, and the call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import _native
from .errors import InputError
from .pattern import parse_pattern
from .problem import Op, Problem
from .spec import Machine

FLOAT_BYTES = 4
FRESH_BYTES = 32 * 1024 * 1024
"""From here on glibc takes memory from the system anew each time (mallopt(3), M_MMAP_THRESHOLD, its largest value), and
page faults can take longer than the layer."""

NATIVE_PATTERNS = ("unstructured", "block", "n:m", "filter", "channel", "shape", "filter2d")
"""Element-wise packing skips every zero, whatever put it there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionSet:
    """Width of a vector in floats, accumulators of the inner kernel, and whether vector loads can be cut short.

    The numbers are those of ``native/simd_*.h``; packing refuses others.
    """

    name: str
    lanes: int
    max_tile: int
    guarded_loads: bool


INSTRUCTION_SETS = (
    InstructionSet(name="avx512", lanes=16, max_tile=28, guarded_loads=True),
    InstructionSet(name="avx2", lanes=8, max_tile=13, guarded_loads=True),
    InstructionSet(name="baseline", lanes=4, max_tile=12, guarded_loads=False),
)


class NativeLayer(Protocol):
    """Packed weights on the native side."""

    def run(self, x: int, x_bytes: int, residual: int, y: int, y_bytes: int, threads: int) -> None: ...


def check_weights(problem: Problem, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse a weight or a bias that does not belong to a problem.

    Raises
    ------
    InputError
        If the shape differs from [K, C, R, S] or [K], or the dtype is not float32.
    """
    expected = {"weight": (weight, problem.weight_shape)}
    if bias is not None:
        expected["bias"] = (bias, (problem.c_out,))
    for name, (tensor, shape) in expected.items():
        _check_tensor(name, tensor, shape)


def run_native(problem: Problem, layer: NativeLayer, x: Tensor) -> Tensor:
    """Run packed weights on all of torch's threads.

    Parameters
    ----------
    x : Tensor
        float32, [N, C, H, W] or [N, C]; copied first where it is not contiguous.

    Raises
    ------
    InputError
        If `x` has another shape or dtype than the problem.
    """
    _check_tensor("input", x, problem.input_shape)
    y = torch.empty(problem.output_shape)
    if y.nbytes >= FRESH_BYTES:
        _native.advise_huge_pages(y.data_ptr(), y.nbytes)
    x = x.contiguous()
    layer.run(x.data_ptr(), x.nbytes, 0, y.data_ptr(), y.nbytes, torch.get_num_threads())
    return y


def why_native_unsupported(problem: Problem, machine: Machine, *, op: Op, isa: InstructionSet) -> str | None:
    """The reason why no native kernel of an instruction set can run a problem, or None."""
    if problem.op != op:
        return f"runs {op}, not {problem.op}"
    if problem.dtype != "float32":
        return f"computes in float32, not {problem.dtype}"
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


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        raise InputError(
            f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device.type}; "
            f"the packed problem needs torch.float32 {list(shape)} on cpu"
        )
