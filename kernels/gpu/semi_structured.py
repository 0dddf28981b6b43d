"""2:4 sparse linears, and 1x1 convolutions in channels-last memory, through torch's semi-structured products.

torch keeps two of every four weights with two bits of place each, and calls cuSPARSELt (compute capability 8 and newer)
or CUTLASS (8 alone). The units take the sparse matrix on the left, so torch computes the transposed product, and rounds
small batches up: what that costs is measured, not assumed away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ..dense import SHORT_DTYPES, TORCH_DTYPES, finish
from ..errors import InputError
from ..layout import check_residual, memory_format
from ..pattern import NmPart, parse_pattern
from ..problem import DTYPE_BYTES, Dtype, Op, Problem
from ..spec import Cost, GpuUnit, KernelSpec, Layout, Machine
from .eligibility import why_not_here
from .machine import CUSPARSELT, CUTLASS

Library = Literal["cusparselt", "cutlass"]
OPERATORS: dict[Library, str] = {"cusparselt": CUSPARSELT, "cutlass": CUTLASS}
UNITS: dict[Dtype, GpuUnit] = {"bfloat16": "gpu_bf16_2:4", "float16": "gpu_f16_2:4"}
WEIGHT_SIDES: dict[Library, tuple[int, int]] = {"cusparselt": (16, 16), "cutlass": (32, 64)}
"""Output and input channels are multiples of these (torch/sparse/semi_structured.py, _DTYPE_SHAPE_CONSTRAINTS)."""
ROWS = 8
"""Rows of the input that torch rounds up to."""
TILE = 128
"""Rows and output channels of a tile (assumed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTwoOfFour:
    """A 2:4 weight [K, C] as torch's libraries keep it."""

    problem: Problem
    weight: Tensor
    bias: Tensor | None
    relu: bool
    layout: Layout


def is_two_of_four(weight: Tensor) -> bool:
    """Whether at most two of every four neighbours in the rows of [K, C] are non-zero."""
    return weight.shape[1] % 4 == 0 and int((weight.reshape(-1, 4) != 0).sum(1).amax()) <= 2


def pack_two_of_four(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, layout: Layout, library: Library
) -> PackedTwoOfFour:
    """Compress a dense weight [K, C, 1, 1] that contains zeros, on its own device.

    Raises
    ------
    InputError
        If some four neighbouring input channels hold more than two non-zero weights.
    """
    dtype = TORCH_DTYPES[problem.dtype]
    matrix = weight.detach().reshape(problem.c_out, problem.c_in).to(dtype).contiguous()
    if not is_two_of_four(matrix):
        raise InputError(
            "the weight is not 2:4: some four neighbouring input channels hold more than two non-zero weights; "
            "impose the pattern of the plan on it first"
        )
    kinds = {
        "cusparselt": torch.sparse.SparseSemiStructuredTensorCUSPARSELT,
        "cutlass": torch.sparse.SparseSemiStructuredTensorCUTLASS,
    }
    return PackedTwoOfFour(
        problem=problem,
        weight=kinds[library].from_dense(matrix),
        bias=None if bias is None else bias.detach().to(dtype),
        relu=relu,
        layout=layout,
    )


def run_two_of_four(packed: PackedTwoOfFour, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C] to [N, K], or [N, C, H, W] to [N, K, H, W], both channels_last, whose pixels are rows."""
    problem = packed.problem
    if residual is not None:
        check_residual(residual, problem.output_shape, x.dtype, packed.layout, device=x.device)
    if x.dim() == 2:
        return finish(torch.nn.functional.linear(x, packed.weight, packed.bias), residual, relu=packed.relu)
    rows = x.contiguous(memory_format=memory_format(4, packed.layout)).permute(0, 2, 3, 1).reshape(-1, problem.c_in)
    y = torch.nn.functional.linear(rows, packed.weight, packed.bias)
    image = y.reshape(problem.n, problem.h_out, problem.w_out, problem.c_out).permute(0, 3, 1, 2)
    return finish(image, residual, relu=packed.relu)


def two_of_four_cost(problem: Problem) -> Cost:
    """Work of a blocked product counted as dense work; half the weights move, with two bits for each."""
    rows = math.ceil(problem.n * problem.h_out * problem.w_out / ROWS) * ROWS
    tiles = math.ceil(rows / TILE) * math.ceil(problem.c_out / TILE)
    reduction = math.prod(problem.weight_shape[1:])
    value_bytes = DTYPE_BYTES[problem.dtype]
    kept_bytes = problem.weight_count / 2 * (value_bytes + 0.25)
    per_column = tiles * (min(TILE, rows) * value_bytes + min(TILE, problem.c_out) * (value_bytes + 0.25) / 2)
    return Cost(
        unit=UNITS[problem.dtype],
        flop=2.0 * math.ceil(rows / TILE) * TILE * math.ceil(problem.c_out / TILE) * TILE * reduction,
        bytes_streamed=per_column * reduction,
        bytes_moved=problem.input_bytes + problem.output_bytes + kept_bytes,
        tasks=tiles,
        bytes_copied=2.0 * problem.output_bytes,
    )


def why_two_of_four_unsupported(
    problem: Problem, machine: Machine, *, op: Op, dtype: Dtype, library: Library
) -> str | None:
    """The reason why the library cannot run a problem, or None."""
    if reason := why_not_here(problem, machine, op=op, dtype=dtype):
        return reason
    if OPERATORS[library] not in machine.torch_ops:
        return f"this GPU, or this torch, has no 2:4 products of {library}"
    parts = parse_pattern(problem.pattern).parts
    if not any(isinstance(part, NmPart) and (part.n, part.m) == (2, 4) for part in parts):
        return f"keeps 2 of 4 weights; the pattern is {problem.pattern!r}"
    flat = problem.kernel == (1, 1) and problem.stride == (1, 1) and problem.padding == (0, 0)
    if not flat or problem.groups > 1:
        return "multiplies matrices: of convolutions, 1x1 ones without stride, padding and groups"
    k, c = WEIGHT_SIDES[library]
    if problem.c_out % k or problem.c_in % c:
        return f"needs multiples of {k} output and {c} input channels, the layer has {problem.c_out} and {problem.c_in}"
    return None


def _kernel(op: Op, dtype: Dtype, library: Library) -> KernelSpec:
    layout: Layout = "nhwc" if op == "conv2d" else "nchw"
    pack: Any = partial(pack_two_of_four, layout=layout, library=library)
    return KernelSpec(
        name=f"{op}_2of4_{SHORT_DTYPES[dtype]}_{layout}__{library}",
        op=op,
        patterns=("n:m",),
        dtype=dtype,
        isa="any",
        layout=layout,
        pack=pack,
        run=run_two_of_four,
        cost=two_of_four_cost,
        why_unsupported=partial(why_two_of_four_unsupported, op=op, dtype=dtype, library=library),
        device="cuda",
    )


_OPS: tuple[Op, ...] = ("conv2d", "linear")
_DTYPES: tuple[Dtype, ...] = ("bfloat16", "float16")
_LIBRARIES: tuple[Library, ...] = ("cusparselt", "cutlass")
KERNELS: tuple[KernelSpec, ...] = tuple(
    _kernel(op, dtype, library) for op in _OPS for dtype in _DTYPES for library in _LIBRARIES
)
