"""Dense layers on a GPU through torch: cuBLAS and cuDNN, with the ReLU in a pass of its own or in their epilogue."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..dense import (
    SHORT_DTYPES,
    PackedConv,
    PackedLinear,
    pack_conv2d_torch,
    pack_linear_torch,
    run_conv2d_torch,
    run_linear_torch,
)
from ..layout import check_residual
from ..pattern import SasPart, parse_pattern
from ..problem import DTYPE_BYTES, Dtype, Op, Problem
from ..spec import Cost, GpuUnit, KernelSpec, Machine
from .eligibility import why_no_cuda

UNITS: dict[Dtype, GpuUnit] = {"float32": "gpu_f32", "bfloat16": "gpu_bf16", "float16": "gpu_f16"}
"""float32 is float32: TF32 is switched off where torch would use it, in cuDNN."""
TILE = 128
"""Pixels, and output channels, of a tile of one multiprocessor (assumed; the libraries choose among many)."""


def float32_as_asked() -> AbstractContextManager[None]:
    """cuDNN without TF32, choosing the fastest of its algorithms by a trial at the first call of a shape."""
    settings: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    return settings


def run_conv2d_cudnn(packed: PackedConv, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both channels_last; residual and ReLU take passes of their own."""
    with float32_as_asked():
        return run_conv2d_torch(packed, x, residual)


def run_conv2d_fused(packed: PackedConv, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """As `run_conv2d_cudnn`, with bias, residual and ReLU in cuDNN's epilogue; without ReLU nothing is fused."""
    if not packed.relu:
        return run_conv2d_cudnn(packed, x, residual)
    place = (packed.stride, packed.padding, packed.dilation, packed.groups)
    y: Tensor
    with float32_as_asked():
        if residual is None:
            y = torch.cudnn_convolution_relu(x, packed.weight, packed.bias, *place)
        else:
            check_residual(residual, packed.output_shape, x.dtype, packed.layout, device=x.device)
            y = torch.cudnn_convolution_add_relu(x, packed.weight, residual, 1.0, packed.bias, *place)
    return y


def run_linear_fused(packed: PackedLinear, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C] to [N, K], with bias and ReLU in cuBLASLt's epilogue where there is no residual before the ReLU."""
    if residual is not None or packed.bias is None or not packed.relu:
        return run_linear_torch(packed, x, residual)
    y: Tensor = torch._addmm_activation(packed.bias, x, packed.weight.t())
    return y


def library_cost(problem: Problem, *, is_fused: bool) -> Cost:
    """Work of a blocked product in tiles of 128 x 128; a ReLU in a pass of its own reads and writes the output."""
    c_group, k_group = problem.weight_shape[1], problem.c_out // problem.groups
    reduction = c_group * math.prod(problem.kernel)
    pixels = problem.n * problem.h_out * problem.w_out
    tiles = problem.groups * math.ceil(pixels / TILE) * math.ceil(k_group / TILE)
    # Half tiles are common at the edges.
    executed = 2.0 * problem.groups * _round_up(pixels) * _round_up(k_group) * reduction
    return Cost(
        unit=UNITS[problem.dtype],
        flop=executed,
        bytes_streamed=tiles * reduction * (min(TILE, pixels) + min(TILE, k_group)) * DTYPE_BYTES[problem.dtype],
        bytes_moved=problem.input_bytes + problem.weight_bytes + problem.output_bytes,
        tasks=tiles,
        bytes_copied=0.0 if is_fused else 2.0 * problem.output_bytes,
    )


def _round_up(count: int) -> int:
    return math.ceil(count / (TILE // 2)) * (TILE // 2)


def why_library_unsupported(problem: Problem, machine: Machine) -> str | None:
    """torch's libraries run every weight-sparse problem on a GPU."""
    if reason := why_no_cuda(machine):
        return reason
    for part in parse_pattern(problem.pattern).parts:
        if isinstance(part, SasPart):
            return f"pattern {part.name!r} sparsifies activations, which a dense kernel takes as they are"
    if "sm_80" not in machine.isa:
        return f"needs sm_80, this machine allows {', '.join(machine.isa) or 'no architecture that is known here'}"
    return None


def why_fused_unsupported(problem: Problem, machine: Machine) -> str | None:
    """cuDNN's fused convolutions are not grouped."""
    if problem.groups > 1:
        return f"fuses convolutions of one group, not of {problem.groups}"
    return why_library_unsupported(problem, machine)


def _kernel(op: Op, dtype: Dtype, *, is_fused: bool) -> KernelSpec:
    library = "cudnn" if op == "conv2d" else "cublas"
    runs: dict[tuple[Op, bool], Callable[..., Tensor]] = {
        ("conv2d", False): run_conv2d_cudnn,
        ("conv2d", True): run_conv2d_fused,
        ("linear", False): run_linear_torch,
        ("linear", True): run_linear_fused,
    }
    pack: Callable[..., Any] = partial(pack_conv2d_torch, layout="nhwc") if op == "conv2d" else pack_linear_torch
    return KernelSpec(
        name=f"{op}_dense_{SHORT_DTYPES[dtype]}_{'nhwc' if op == 'conv2d' else 'nchw'}__{library}"
        + ("_fused" if is_fused else ""),
        op=op,
        patterns=("dense",),
        dtype=dtype,
        isa="any",
        layout="nhwc" if op == "conv2d" else "nchw",
        pack=pack,
        run=runs[op, is_fused],
        cost=partial(library_cost, is_fused=is_fused),
        why_unsupported=why_fused_unsupported if is_fused else why_library_unsupported,
        device="cuda",
    )


_OPS: tuple[Op, ...] = ("conv2d", "linear")
_DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
KERNELS: tuple[KernelSpec, ...] = tuple(
    _kernel(op, dtype, is_fused=is_fused) for op in _OPS for dtype in _DTYPES for is_fused in (False, True)
)
