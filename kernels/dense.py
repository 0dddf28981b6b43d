"""Dense layers through torch: its eager operators, and oneDNN with weights packed once as torch.compile packs them.

A dense kernel runs any pattern of weight sparsity: zeros are numbers to it.

Winograd and FFT are not among them: oneDNN picks Winograd only when told to, torch's bindings always ask it for
``algorithm::convolution_direct`` (ideep, ``operators/conv.hpp``) and offer no switch, and oneDNN has no FFT on CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import MEMORY_FORMATS, check_residual
from .pattern import SasPart, parse_pattern
from .problem import DTYPE_BYTES, Dtype, Op, Problem
from .spec import Cost, KernelSpec, Layout, Machine, Unit

TORCH_DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.uint8,
}
"""Of the activations."""
UNITS: dict[Dtype, Unit] = {
    "float32": "fma_f32",
    "bfloat16": "dot_bf16",
    "float16": "fma_f16",
    "int8": "dot_int8",
}
SHORT_DTYPES: dict[Dtype, str] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "i8"}

CONV_OPS = ("mkldnn::_reorder_convolution_weight", "mkldnn::_convolution_pointwise")
LINEAR_OPS = ("mkldnn::_reorder_linear_weight", "mkldnn::_linear_pointwise")
MKL_OPS = ("mkl::_mkl_reorder_linear_weight", "mkl::_mkl_linear")

_LANES = 16
"""Output channels that oneDNN's kernels round up to: the float32 lanes of AVX-512, the rows of an AMX tile."""
_REGISTER_TILES: dict[Dtype, tuple[int, int]] = {
    "float32": (14, 32),
    "bfloat16": (32, 32),
    "float16": (14, 64),
    "int8": (32, 32),
}
"""Pixels x output channels whose sums stay in registers: 28 AVX-512 accumulators, or 2 x 2 AMX tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedConv:
    """A convolution ready to run; `weight` is [K, C, R, S] or oneDNN's opaque form of it."""

    weight: Tensor
    bias: Tensor | None
    relu: bool
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    output_shape: tuple[int, ...]
    layout: Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedLinear:
    """A matrix product ready to run; `weight` is [K, C] or oneDNN's opaque form of it."""

    weight: Tensor
    bias: Tensor | None
    relu: bool
    output_shape: tuple[int, ...]


def pack_conv2d_torch(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, layout: Layout
) -> PackedConv:
    """Convert the weight to the dtype of the problem and to the memory order of the activations.

    The result may share memory with `weight` and `bias`.
    """
    dtype = TORCH_DTYPES[problem.dtype]
    return PackedConv(
        weight=weight.detach().to(dtype).contiguous(memory_format=MEMORY_FORMATS[layout]),
        bias=None if bias is None else bias.detach().to(dtype),
        relu=relu,
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
        output_shape=problem.output_shape,
        layout=layout,
    )


def run_conv2d_torch(packed: PackedConv, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'] through ``torch.nn.functional.conv2d``."""
    _check(packed, residual, x, packed.layout)
    y = F.conv2d(x, packed.weight, packed.bias, packed.stride, packed.padding, packed.dilation, packed.groups)
    return finish(y, residual, relu=packed.relu)


def pack_conv2d_onednn(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool) -> PackedConv:
    """Reorder the weight into the blocked form that oneDNN prefers for the sizes of the problem.

    References
    ----------
    ``torch/_inductor/fx_passes/mkldnn_fusion.py`` does the same for frozen weights.
    """
    dtype = TORCH_DTYPES[problem.dtype]
    reordered = torch.ops.mkldnn._reorder_convolution_weight(
        weight.detach().to(dtype).contiguous(),
        problem.padding,
        problem.stride,
        problem.dilation,
        problem.groups,
        problem.input_shape,
    )
    return PackedConv(
        weight=reordered,
        bias=None if bias is None else bias.detach().to(dtype),
        relu=relu,
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        groups=problem.groups,
        output_shape=problem.output_shape,
        layout="nhwc",
    )


def run_conv2d_onednn(packed: PackedConv, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both channels_last; bias, residual and ReLU happen inside the operator.

    With groups the residual is added outside: torch leaves oneDNN there, and its way around knows no bfloat16.
    """
    _check(packed, residual, x, "nhwc")
    y: Tensor
    if residual is not None and packed.groups == 1:
        y = torch.ops.mkldnn._convolution_pointwise.binary(
            x,
            residual,
            packed.weight,
            packed.bias,
            packed.padding,
            packed.stride,
            packed.dilation,
            packed.groups,
            "add",
            None,
            "relu" if packed.relu else None,
            [],
            None,
        )
        return y
    y = torch.ops.mkldnn._convolution_pointwise(
        x,
        packed.weight,
        packed.bias,
        packed.padding,
        packed.stride,
        packed.dilation,
        packed.groups,
        "relu" if packed.relu and residual is None else "none",
        [],
        "",
    )
    return y if residual is None else finish(y, residual, relu=packed.relu)


def pack_linear_torch(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool) -> PackedLinear:
    """Convert the weight [K, C, 1, 1] to [K, C] of the dtype of the problem."""
    dtype = TORCH_DTYPES[problem.dtype]
    matrix = weight.detach().to(dtype).reshape(problem.c_out, problem.c_in).contiguous()
    return PackedLinear(
        weight=matrix,
        bias=None if bias is None else bias.detach().to(dtype),
        relu=relu,
        output_shape=problem.output_shape,
    )


def run_linear_torch(packed: PackedLinear, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C] to [N, K] through ``torch.nn.functional.linear``."""
    _check(packed, residual, x, "nchw")
    return finish(F.linear(x, packed.weight, packed.bias), residual, relu=packed.relu)


def pack_linear_onednn(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool) -> PackedLinear:
    """Reorder the weight into the blocked form that oneDNN prefers for the batch of the problem."""
    plain = pack_linear_torch(problem, weight, bias, relu)
    reordered = torch.ops.mkldnn._reorder_linear_weight(plain.weight, problem.n)
    return replace(plain, weight=reordered)


def run_linear_onednn(packed: PackedLinear, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C] to [N, K]; bias and ReLU, or bias and residual, happen inside the operator, which cannot do all three."""
    _check(packed, residual, x, "nchw")
    y: Tensor
    if residual is not None:
        y = torch.ops.mkldnn._linear_pointwise.binary(x, residual, packed.weight, packed.bias, "add")
        return y.relu_() if packed.relu else y
    activation = "relu" if packed.relu else "none"
    y = torch.ops.mkldnn._linear_pointwise(x, packed.weight, packed.bias, activation, [], "")
    return y


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedMkl:
    """A linear layer as MKL packs it for one batch; the library asks for the plain weight too."""

    plain: PackedLinear
    weight: Tensor
    batch: int


def pack_linear_mkl(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool) -> PackedMkl:
    """Pack the weight for the batch of the problem."""
    plain = pack_linear_torch(problem, weight, bias, relu)
    packed = torch.ops.mkl._mkl_reorder_linear_weight(plain.weight, problem.n)
    return PackedMkl(plain=plain, weight=packed, batch=problem.n)


def run_linear_mkl(packed: PackedMkl, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C] to [N, K] through MKL, as torch.compile with frozen weights runs a float32 linear."""
    plain = packed.plain
    _check(plain, residual, x, "nchw")
    y: Tensor = torch.ops.mkl._mkl_linear(x, packed.weight, plain.weight, plain.bias, packed.batch)
    return finish(y, residual, relu=plain.relu)


def finish(y: Tensor, residual: Tensor | None, *, relu: bool) -> Tensor:
    """Add the residual to an output and rectify it, in place."""
    if residual is not None:
        y.add_(residual)
    return y.relu_() if relu else y


def _check(packed: PackedConv | PackedLinear, residual: Tensor | None, x: Tensor, layout: Layout) -> None:
    if residual is not None:
        check_residual(residual, packed.output_shape, x.dtype, layout, device=x.device)


def prepacked_cost(problem: Problem) -> Cost:
    """Work of a blocked matrix product over the whole weight, whatever its zeros.

    Output channels count in full blocks of 16. Per step of the reduction a register tile of p pixels x k channels
    loads p + k values for p * k multiply-adds, so each of these streams (1/p + 1/k) values.
    """
    c_group, k_group = problem.c_in // problem.groups, problem.c_out // problem.groups
    reduction = c_group * math.prod(problem.kernel)
    pixels = problem.n * problem.h_out * problem.w_out
    # Depth-wise kernels have one channel a group and spread the groups, not the channels, over the lanes.
    depthwise = c_group == k_group == 1
    outputs = _round_up(problem.groups) if depthwise else problem.groups * _round_up(k_group)
    multiply_adds = float(pixels) * outputs * reduction
    tile_pixels, tile_channels = _REGISTER_TILES[problem.dtype]
    reuse_input = 1 if depthwise else min(tile_channels, _round_up(k_group))
    loads = 1.0 / min(tile_pixels, pixels) + 1.0 / reuse_input
    return Cost(
        unit=UNITS[problem.dtype],
        flop=2.0 * multiply_adds,
        bytes_streamed=multiply_adds * loads * DTYPE_BYTES[problem.dtype],
        bytes_moved=problem.input_bytes + problem.weight_bytes + problem.output_bytes,
        tasks=math.ceil(pixels / tile_pixels) * math.ceil(outputs / tile_channels),
    )


def conv2d_torch_cost(problem: Problem, *, layout: Layout) -> Cost:
    """`prepacked_cost` plus the copies of each call: weights are reordered, nchw activations too."""
    reordered = 0.0 if layout == "nhwc" else (problem.input_bytes + problem.output_bytes) / DTYPE_BYTES[problem.dtype]
    return with_copies(prepacked_cost(problem), problem.weight_bytes, values_dealt=reordered)


def linear_torch_cost(problem: Problem) -> Cost:
    """`prepacked_cost` plus the copy of the weights that the library packs in each call."""
    return with_copies(prepacked_cost(problem), problem.weight_bytes)


def with_copies(cost: Cost, copied_bytes: float, *, values_dealt: float = 0.0) -> Cost:
    """The cost with `copied_bytes` more read and written, and values put in another order."""
    return replace(
        cost,
        bytes_copied=cost.bytes_copied + 2.0 * copied_bytes,
        values_dealt=cost.values_dealt + values_dealt,
    )


def _round_up(count: int) -> int:
    return math.ceil(count / _LANES) * _LANES


def why_torch_unsupported(problem: Problem, machine: Machine) -> str | None:
    """Eager torch runs every weight-sparse problem on the CPU."""
    if machine.device != "cpu":
        return f"runs on the CPU only, the machine is {machine.device!r}"
    for part in parse_pattern(problem.pattern).parts:
        if isinstance(part, SasPart):
            return f"pattern {part.name!r} sparsifies activations, which a dense kernel takes as they are"
    return None


def why_onednn_unsupported(problem: Problem, machine: Machine) -> str | None:
    """oneDNN needs its operators in torch, and AVX-512 for bfloat16."""
    if reason := why_torch_unsupported(problem, machine):
        return reason
    needed = CONV_OPS if problem.op == "conv2d" else LINEAR_OPS
    if missing := [name for name in needed if name not in machine.torch_ops]:
        return f"this torch lacks the operator {missing[0]}"
    if problem.dtype == "bfloat16" and "avx512" not in machine.isa:
        return f"oneDNN needs avx512 for bfloat16, this machine allows {', '.join(machine.isa)}"
    return None


def why_mkl_unsupported(problem: Problem, machine: Machine) -> str | None:
    """MKL needs its operators in torch."""
    if reason := why_torch_unsupported(problem, machine):
        return reason
    if missing := [name for name in MKL_OPS if name not in machine.torch_ops]:
        return f"this torch lacks the operator {missing[0]}"
    return None


def runs_in_networks(kernel: KernelSpec, machine: Machine) -> bool:
    """Whether torch itself would run a dense kernel in a network, eager or compiled.

    Compiled networks call MKL for a float32 linear where torch has it, although oneDNN is often faster. torch runs no
    network in int8 by itself.
    """
    if kernel.dtype == "int8":
        return False
    if kernel.op != "linear" or kernel.dtype != "float32" or kernel.run is not run_linear_onednn:
        return True
    return any(name not in machine.torch_ops for name in MKL_OPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Library:
    """How a library runs an operation; the members are those of `KernelSpec`."""

    name: str
    pack: Callable[..., PackedConv | PackedLinear | PackedMkl]
    run: Callable[..., Tensor]
    cost: Callable[[Problem], Cost] = prepacked_cost
    why_unsupported: Callable[[Problem, Machine], str | None] = why_onednn_unsupported


def _eager_conv2d(layout: Layout) -> _Library:
    return _Library(
        name="torch",
        pack=partial(pack_conv2d_torch, layout=layout),
        run=run_conv2d_torch,
        cost=partial(conv2d_torch_cost, layout=layout),
        why_unsupported=why_torch_unsupported,
    )


_ONEDNN_CONV2D = _Library(name="onednn", pack=pack_conv2d_onednn, run=run_conv2d_onednn)
_EAGER_LINEAR = _Library(
    name="torch",
    pack=pack_linear_torch,
    run=run_linear_torch,
    cost=linear_torch_cost,
    why_unsupported=why_torch_unsupported,
)
_ONEDNN_LINEAR = _Library(name="onednn", pack=pack_linear_onednn, run=run_linear_onednn)
_MKL_LINEAR = _Library(name="mkl", pack=pack_linear_mkl, run=run_linear_mkl, why_unsupported=why_mkl_unsupported)


def _spec(op: Op, dtype: Dtype, layout: Layout, library: _Library) -> KernelSpec:
    return KernelSpec(
        name=f"{op}_dense_{SHORT_DTYPES[dtype]}_{layout}__{library.name}",
        op=op,
        patterns=("dense",),
        dtype=dtype,
        isa="any",
        layout=layout,
        pack=library.pack,
        run=library.run,
        cost=library.cost,
        why_unsupported=library.why_unsupported,
    )


_DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
_LAYOUTS: tuple[Layout, ...] = ("nchw", "nhwc")

KERNELS: tuple[KernelSpec, ...] = (
    *(_spec("conv2d", dtype, layout, _eager_conv2d(layout)) for dtype in _DTYPES for layout in _LAYOUTS),
    *(_spec("conv2d", dtype, "nhwc", _ONEDNN_CONV2D) for dtype in _DTYPES),
    *(_spec("linear", dtype, "nchw", _EAGER_LINEAR) for dtype in _DTYPES),
    *(_spec("linear", dtype, "nchw", _ONEDNN_LINEAR) for dtype in _DTYPES),
    _spec("linear", "float32", "nchw", _MKL_LINEAR),
)
