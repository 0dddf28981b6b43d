"""Compacted dense layers: removed filters, channels and shape columns leave a smaller dense layer behind.

What is removed is read from the weight itself, so any weight with zeros gives the exact result; only the speed depends
on the zeros falling into whole groups.

References
----------
Wen et al., Learning Structured Sparsity in Deep Neural Networks, NIPS 2016 (arXiv 1608.03665), sections 3.1 and 3.2:
rows and columns of the GEMM matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import dense
from .groups import free_density
from .pattern import parse_pattern
from .problem import DTYPE_BYTES, Dtype, Problem
from .spec import Cost, KernelSpec, Machine

COLUMN_BUFFER_BYTES = 4 << 20
"""Images are unrolled in portions of this size, so that the product reads the columns from cache again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors:
    """Indices of the filters and input channels that hold a non-zero weight; None where all of them do."""

    filters: Tensor | None
    channels: Tensor | None
    k: int
    c: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCompact:
    """A smaller dense layer, what feeds it and where its output goes."""

    inner: dense.PackedConv | dense.PackedLinear | None
    """None where no weight survives."""
    survivors: Survivors
    constant: Tensor
    """[K], `dtype`: the output of a removed filter, its bias after ReLU."""
    spatial_out: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnRun:
    """Surviving columns of one kernel position (r, s): their input channels, and where they lie in the matrix."""

    r: int
    s: int
    channels: Tensor
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedShape:
    """Surviving rows and columns of the GEMM matrix, concatenated."""

    matrix: Tensor
    """[K', columns], `dtype`; the columns of one kernel position lie side by side."""
    runs: tuple[ColumnRun, ...]
    bias: Tensor
    """[K', 1], `dtype`."""
    relu: bool
    filters: Tensor | None
    constant: Tensor
    """[K], `dtype`: the output of a removed filter."""
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    spatial_out: tuple[int, int]


def find_survivors(weight: Tensor) -> Survivors:
    """Filters and input channels of a weight [K, C, R, S] (one group) that are not zero throughout."""
    alive = weight != 0
    filters, channels = (alive.any(dim=axes).nonzero().flatten() for axes in ((1, 2, 3), (0, 2, 3)))
    return Survivors(
        filters=None if len(filters) == weight.shape[0] else filters,
        channels=None if len(channels) == weight.shape[1] else channels,
        k=len(filters),
        c=len(channels),
    )


def pack_compact(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, inner: KernelSpec
) -> PackedCompact:
    """Cut the weight down to its surviving filters and channels and pack that for the dense kernel `inner`."""
    weight = weight.detach()
    survivors = find_survivors(weight)
    smaller, smaller_bias = weight, bias
    if survivors.channels is not None:
        smaller = smaller.index_select(1, survivors.channels)
    if survivors.filters is not None:
        smaller = smaller.index_select(0, survivors.filters)
        smaller_bias = None if bias is None else bias.detach().index_select(0, survivors.filters)
    packed = None
    if survivors.k:
        reduced = replace(problem.as_dense(), c_in=survivors.c, c_out=survivors.k)
        packed = inner.pack(reduced, smaller, smaller_bias, relu)
    return PackedCompact(
        inner=packed,
        survivors=survivors,
        constant=_constant_output(problem, bias, relu),
        spatial_out=problem.output_shape[2:],
    )


def run_compact(packed: PackedCompact, x: Tensor, *, inner: KernelSpec) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'] in the layout of `inner`, or [N, C] to [N, K]."""
    if packed.inner is None:
        return _filled(packed.constant, (len(x), *packed.spatial_out), inner)
    if packed.survivors.channels is not None:
        x = _take_channels(x, packed.survivors.channels, inner)
    y = inner.run(packed.inner, x)
    if packed.survivors.filters is None:
        return y
    out = _filled(packed.constant, (len(x), *packed.spatial_out), inner)
    _put_channels(out, packed.survivors.filters, y, inner)
    return out


def _constant_output(problem: Problem, bias: Tensor | None, relu: bool) -> Tensor:
    dtype = dense.TORCH_DTYPES[problem.dtype]
    constant = torch.zeros(problem.c_out, dtype=dtype) if bias is None else bias.detach().to(dtype)
    return constant.clamp(min=0.0) if relu else constant.clone()


def _filled(constant: Tensor, sizes: tuple[int, ...], inner: KernelSpec) -> Tensor:
    """[N, K, H', W'] or [N, K], `constant` at every position."""
    n, *spatial = sizes
    shape = (n, len(constant), *spatial)
    out = torch.empty(shape, dtype=constant.dtype, memory_format=dense.MEMORY_FORMATS[inner.layout])
    return out.copy_(constant.view(1, -1, *[1] * len(spatial)).expand(shape))


def _take_channels(x: Tensor, channels: Tensor, inner: KernelSpec) -> Tensor:
    if inner.layout == "nchw":
        return x.index_select(1, channels)
    # torch's gather is 3 times faster than its index_select where the channels are innermost.
    pixels = x.permute(0, 2, 3, 1)
    index = channels.expand(*pixels.shape[:3], -1)
    return pixels.gather(3, index).permute(0, 3, 1, 2)


def _put_channels(out: Tensor, channels: Tensor, y: Tensor, inner: KernelSpec) -> None:
    if inner.layout == "nchw":
        out.index_copy_(1, channels, y)
        return
    pixels = y.permute(0, 2, 3, 1)
    out.permute(0, 2, 3, 1).scatter_(3, channels.expand(*pixels.shape[:3], -1), pixels)


def pack_shape(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, whole_channels: KernelSpec
) -> PackedShape | PackedCompact:
    """Concatenate the surviving rows and columns; where these are whole channels, cut channels instead.

    Parameters
    ----------
    whole_channels : KernelSpec
        The dense kernel that runs what is left when no column vanishes inside a surviving channel.
    """
    weight = weight.detach()
    columns = (weight != 0).any(dim=0)
    if torch.equal(columns, columns.any(dim=(1, 2))[:, None, None].expand_as(columns)):
        return pack_compact(problem, weight, bias, relu, inner=whole_channels)
    survivors = find_survivors(weight)
    dtype = dense.TORCH_DTYPES[problem.dtype]
    rows = weight if survivors.filters is None else weight.index_select(0, survivors.filters)
    constant = _constant_output(problem, bias, False)
    runs: list[ColumnRun] = []
    parts: list[Tensor] = []
    start = 0
    for r, s in columns.any(dim=0).nonzero().tolist():
        channels = columns[:, r, s].nonzero().flatten()
        runs.append(ColumnRun(r=r, s=s, channels=channels, start=start, stop=start + len(channels)))
        parts.append(rows[:, channels, r, s])
        start += len(channels)
    return PackedShape(
        matrix=torch.cat(parts, dim=1).to(dtype),
        runs=tuple(runs),
        bias=(constant if survivors.filters is None else constant.index_select(0, survivors.filters))[:, None],
        relu=relu,
        filters=survivors.filters,
        constant=constant.clamp(min=0.0) if relu else constant,
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        spatial_out=(problem.h_out, problem.w_out),
    )


def run_shape(packed: PackedShape | PackedCompact, x: Tensor, *, whole_channels: KernelSpec) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], contiguous: unroll the surviving columns, then one matrix product an image."""
    if isinstance(packed, PackedCompact):
        return run_compact(packed, x, inner=whole_channels)
    pad_h, pad_w = packed.padding
    padded = F.pad(x, (pad_w, pad_w, pad_h, pad_h)) if pad_h or pad_w else x
    n, (h_out, w_out) = len(x), packed.spatial_out
    k, columns = packed.matrix.shape
    image_bytes = columns * h_out * w_out * x.element_size()
    portion = min(n, max(1, COLUMN_BUFFER_BYTES // image_bytes))
    unrolled = x.new_empty(portion, columns, h_out, w_out)
    product = x.new_empty(n, k, h_out * w_out)
    for first in range(0, n, portion):
        images = padded[first : first + portion]
        filled = unrolled[: len(images)]
        _unroll(images, packed, filled)
        torch.baddbmm(
            packed.bias,
            packed.matrix.expand(len(images), -1, -1),
            filled.flatten(2),
            out=product[first : first + portion],
        )
    if packed.relu:
        product.relu_()
    y = product.view(n, k, h_out, w_out)
    if packed.filters is None:
        return y
    out = _filled(packed.constant, (n, h_out, w_out), whole_channels)
    return out.index_copy_(1, packed.filters, y)


def _unroll(images: Tensor, packed: PackedShape, columns: Tensor) -> None:
    """Copy the shifted image of each surviving column from [n, C, H + 2 pad, W + 2 pad] to [n, columns, H', W']."""
    (stride_h, stride_w), (dilation_h, dilation_w) = packed.stride, packed.dilation
    h_out, w_out = packed.spatial_out
    for run in packed.runs:
        top, left = run.r * dilation_h, run.s * dilation_w
        shifted = images[
            :,
            :,
            top : top + (h_out - 1) * stride_h + 1 : stride_h,
            left : left + (w_out - 1) * stride_w + 1 : stride_w,
        ]
        torch.index_select(shifted, 1, run.channels, out=columns[:, run.start : run.stop])


def reduced_sizes(problem: Problem) -> tuple[int, int, int]:
    """Expected filters, channels and GEMM columns that survive the pattern of the problem.

    The density is spread over the free parts of the pattern alike, as `groups.magnitude_mask` does.
    """
    pattern = parse_pattern(problem.pattern)
    density = free_density(pattern, problem.sparsity)
    positions = math.prod(problem.kernel)
    k = _kept(problem.c_out, density if "filter" in pattern.kinds else 1.0)
    c = _kept(problem.c_in, density if "channel" in pattern.kinds else 1.0)
    columns = _kept(c * positions, density if "shape" in pattern.kinds else 1.0)
    # A 1x1 kernel has one column a channel, so a removed column is a removed channel.
    return k, (columns if positions == 1 else c), columns


def _kept(count: int, density: float) -> int:
    return max(1, round(count * density))


def compact_cost(problem: Problem, *, inner: KernelSpec) -> Cost:
    """Cost of the smaller dense layer, plus gathering its input and scattering its output where these shrink."""
    k, c, _ = reduced_sizes(problem)
    reduced = replace(problem.as_dense(), c_in=c, c_out=k)
    cost = inner.cost(reduced)
    gathered = reduced.input_bytes if c < problem.c_in else 0.0
    # The scatter also fills the full output with the constants of removed filters first.
    scattered = reduced.output_bytes + problem.output_bytes / 2.0 if k < problem.c_out else 0.0
    return dense.with_copies(cost, gathered + scattered)


def shape_cost(problem: Problem, *, whole_channels: KernelSpec) -> Cost:
    """Cost of the product [K', columns] x [columns, pixels], plus padding, unrolling and scattering."""
    k, _, columns = reduced_sizes(problem)
    if math.prod(problem.kernel) == 1:
        return compact_cost(problem, inner=whole_channels)
    pixels = problem.n * problem.h_out * problem.w_out
    product = Problem(op="linear", n=pixels, c_in=columns, c_out=k, dtype=problem.dtype)
    padded = problem.input_bytes if max(problem.padding) else 0.0
    unrolled = float(columns * pixels * DTYPE_BYTES[problem.dtype])
    scattered = product.output_bytes + problem.output_bytes / 2.0 if k < problem.c_out else 0.0
    return dense.with_copies(dense.prepacked_cost(product), padded + unrolled + scattered)


def why_compact_unsupported(problem: Problem, machine: Machine, *, inner: KernelSpec) -> str | None:
    """Whatever keeps `inner` from running, grouped layers, and patterns that remove no whole filter or channel."""
    if problem.groups > 1:
        return f"compaction needs one group, the problem has {problem.groups}"
    removable = {"filter", "channel", "shape"} if problem.kernel == (1, 1) else {"filter", "channel"}
    if removable.isdisjoint(parse_pattern(problem.pattern).kinds):
        height, width = problem.kernel
        return f"pattern {problem.pattern!r} removes no whole filter or channel of a {height}x{width} kernel"
    return inner.why_unsupported(problem, machine)


def why_shape_unsupported(problem: Problem, machine: Machine, *, whole_channels: KernelSpec) -> str | None:
    """Whatever keeps the dense kernel from running, and grouped layers."""
    if problem.groups > 1:
        return f"compaction needs one group, the problem has {problem.groups}"
    return whole_channels.why_unsupported(problem, machine)


def _compact(inner: KernelSpec) -> KernelSpec:
    return KernelSpec(
        name=inner.name.replace("_dense_", "_compact_"),
        op=inner.op,
        patterns=("filter", "channel", "shape"),
        dtype=inner.dtype,
        isa=inner.isa,
        layout=inner.layout,
        pack=partial(pack_compact, inner=inner),
        run=partial(run_compact, inner=inner),
        cost=partial(compact_cost, inner=inner),
        why_unsupported=partial(why_compact_unsupported, inner=inner),
    )


def _shape(dtype: Dtype) -> KernelSpec:
    whole_channels = _DENSE[f"conv2d_dense_{dense.SHORT_DTYPES[dtype]}_nchw__torch"]
    return KernelSpec(
        name=whole_channels.name.replace("_dense_", "_shape_"),
        op="conv2d",
        patterns=("shape",),
        dtype=dtype,
        isa="any",
        layout="nchw",
        pack=partial(pack_shape, whole_channels=whole_channels),
        run=partial(run_shape, whole_channels=whole_channels),
        cost=partial(shape_cost, whole_channels=whole_channels),
        why_unsupported=partial(why_shape_unsupported, whole_channels=whole_channels),
    )


_DENSE = {kernel.name: kernel for kernel in dense.KERNELS}

KERNELS: tuple[KernelSpec, ...] = (
    _compact(_DENSE["conv2d_dense_f32_nhwc__onednn"]),
    _compact(_DENSE["conv2d_dense_f32_nchw__torch"]),
    _compact(_DENSE["conv2d_dense_bf16_nhwc__onednn"]),
    _shape("float32"),
    _shape("bfloat16"),
    _compact(_DENSE["linear_dense_f32_nchw__onednn"]),
    _compact(_DENSE["linear_dense_f32_nchw__torch"]),
    _compact(_DENSE["linear_dense_bf16_nchw__onednn"]),
)
