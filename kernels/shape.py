"""SSL's filter shapes: the surviving rows and columns of the GEMM matrix, concatenated into a smaller dense matrix.

The input is unrolled (im2col) into the surviving columns only. What is removed is read from the weight itself, so any
weight with zeros gives the exact result.

References
----------
Wen et al., Learning Structured Sparsity in Deep Neural Networks, NIPS 2016 (arXiv 1608.03665), sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import dense
from .compact import (
    PackedCompact,
    RemovedFilters,
    compact_cost,
    find_survivors,
    pack_compact,
    reduced_sizes,
    removed_filters,
    run_compact,
)
from .layout import check_residual
from .problem import DTYPE_BYTES, Problem
from .spec import Cost, KernelSpec, Machine

COLUMN_BUFFER_BYTES = 4 << 20
"""Images are unrolled in portions of this size, so that the product reads the columns from cache again."""


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
    filters: Tensor | None
    removed: RemovedFilters
    relu: bool
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    spatial_out: tuple[int, int]


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
    removed = removed_filters(problem, bias, relu, layout="nchw")
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
        bias=(removed.bias if survivors.filters is None else removed.bias.index_select(0, survivors.filters))[:, None],
        filters=survivors.filters,
        removed=removed,
        relu=relu,
        stride=problem.stride,
        padding=problem.padding,
        dilation=problem.dilation,
        spatial_out=(problem.h_out, problem.w_out),
    )


def run_shape(
    packed: PackedShape | PackedCompact, x: Tensor, residual: Tensor | None = None, *, whole_channels: KernelSpec
) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], contiguous: unroll the surviving columns, then one matrix product an image."""
    if isinstance(packed, PackedCompact):
        return run_compact(packed, x, residual, inner=whole_channels)
    if residual is not None:
        check_residual(residual, packed.removed.output_shape, x.dtype, "nchw")
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
        taken = unrolled[: len(images)]
        _unroll(images, packed, taken)
        torch.baddbmm(
            packed.bias,
            packed.matrix.expand(len(images), -1, -1),
            taken.flatten(2),
            out=product[first : first + portion],
        )
    y = product.view(n, k, h_out, w_out)
    if packed.filters is None:
        return dense.finish(y, residual, relu=packed.relu)
    kept = None if residual is None else residual.index_select(1, packed.filters)
    dense.finish(y, kept, relu=packed.relu)
    return packed.removed.output(n, residual).index_copy_(1, packed.filters, y)


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


def why_shape_unsupported(problem: Problem, machine: Machine, *, whole_channels: KernelSpec) -> str | None:
    """Whatever keeps the dense kernel from running, and grouped layers."""
    if problem.groups > 1:
        return f"compaction needs one group, the problem has {problem.groups}"
    return whole_channels.why_unsupported(problem, machine)


def _shape(whole_channels: KernelSpec) -> KernelSpec:
    return KernelSpec(
        name=whole_channels.name.replace("_dense_", "_shape_"),
        op="conv2d",
        patterns=("shape",),
        dtype=whole_channels.dtype,
        isa="any",
        layout="nchw",
        pack=partial(pack_shape, whole_channels=whole_channels),
        run=partial(run_shape, whole_channels=whole_channels),
        cost=partial(shape_cost, whole_channels=whole_channels),
        why_unsupported=partial(why_shape_unsupported, whole_channels=whole_channels),
    )


_DENSE = {kernel.name: kernel for kernel in dense.KERNELS}

KERNELS: tuple[KernelSpec, ...] = (
    _shape(_DENSE["conv2d_dense_f32_nchw__torch"]),
    _shape(_DENSE["conv2d_dense_bf16_nchw__torch"]),
)
