"""Compacted dense layers: removed filters and channels leave a smaller dense layer behind.

What is removed is read from the weight itself, so any weight with zeros gives the exact result; only the speed depends
on the zeros falling into whole groups. Kernels that read channels a tile at a time keep some removed ones, so that
tiles are whole: their zero weights cost nothing more, and the kernel reads the gathered input in place.

References
----------
Wen et al., Learning Structured Sparsity in Deep Neural Networks, NIPS 2016 (arXiv 1608.03665), section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from . import dense, tile_sparse
from .channels import KeptChannels, keep_channels, put_channels, take_channels
from .groups import free_density
from .layout import check_residual, memory_format
from .pattern import parse_pattern
from .problem import DTYPE_BYTES, Problem
from .quantisation import BIAS_MAX, STORED_MAX, Quantisation, quantise_layer
from .spec import Cost, KernelSpec, Layout, Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors:
    """Indices of the filters and input channels that hold a non-zero weight; None where all of them do."""

    filters: Tensor | None
    channels: Tensor | None
    k: int
    c: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedFilters:
    """What the output is where no weight contributes: the bias, plus the residual if there is one, then the ReLU.

    Attributes
    ----------
    bias : Tensor
        [K], `dtype`; of an int8 layer int32, in steps of the output.
    constant : Tensor
        [K], `dtype`: the output without a residual.
    least : int or None
        Least output that is stored: 0 with ReLU, an int8 layer's `low`.
    """

    bias: Tensor
    constant: Tensor
    least: int | None
    output_shape: tuple[int, ...]
    layout: Layout

    def output(self, n: int, residual: Tensor | None) -> Tensor:
        """[N, K, H', W'] or [N, K] as if all filters were removed."""
        shape = (n, *self.output_shape[1:])
        values = self.constant if residual is None else self.bias
        everywhere = values.view(1, -1, *[1] * (len(shape) - 2)).expand(shape)
        out = torch.empty(shape, dtype=self.constant.dtype, memory_format=memory_format(len(shape), self.layout))
        if residual is None:
            return out.copy_(everywhere)
        if out.dtype is torch.uint8:
            return out.copy_((residual + everywhere).clamp_(self.least, STORED_MAX))
        torch.add(residual, everywhere, out=out)
        return out if self.least is None else out.clamp_(min=self.least)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCompact:
    """A smaller dense layer, what feeds it and where its output goes."""

    inner: dense.PackedConv | dense.PackedLinear | None
    """None where no weight survives."""
    survivors: Survivors
    taken: KeptChannels | None
    """Of the input, where channels are innermost and some are removed; `put` likewise of the output."""
    put: KeptChannels | None
    removed: RemovedFilters


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
    problem: Problem,
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    quantisation: Quantisation | None = None,
    *,
    inner: KernelSpec,
    tile_channels: int = 1,
) -> PackedCompact:
    """Cut the weight down to its surviving filters and channels and pack that for the dense kernel `inner`.

    Parameters
    ----------
    quantisation : Quantisation or None
        Of input and output, for int8 alone.
    tile_channels : int
        Input channels that `inner` reads together.
    """
    weight = weight.detach()
    survivors = fill_tiles(find_survivors(weight), problem.c_in, tile_channels)
    smaller, smaller_bias = weight, bias
    if survivors.channels is not None:
        smaller = smaller.index_select(1, survivors.channels)
    if survivors.filters is not None:
        smaller = smaller.index_select(0, survivors.filters)
        smaller_bias = None if bias is None else bias.detach().index_select(0, survivors.filters)
    packed = None
    if survivors.k:
        reduced = replace(problem.as_dense(), c_in=survivors.c, c_out=survivors.k)
        stored = () if quantisation is None else (quantisation,)
        packed = inner.pack(reduced, smaller, smaller_bias, relu, *stored)
    innermost = _channels_are_innermost(inner)
    dtype = dense.TORCH_DTYPES[problem.dtype]
    taken, put = (
        keep_channels(total, kept, dtype) if innermost and kept is not None else None
        for total, kept in ((problem.c_in, survivors.channels), (problem.c_out, survivors.filters))
    )
    return PackedCompact(
        inner=packed,
        survivors=survivors,
        taken=taken,
        put=put,
        removed=removed_filters(problem, bias, relu, quantisation, layout=inner.layout),
    )


def fill_tiles(survivors: Survivors, total: int, tile_channels: int) -> Survivors:
    """Keep the first of the removed channels too, until whole tiles of channels are kept, or all of them."""
    if survivors.channels is None or tile_channels == 1:
        return survivors
    wanted = min(total, math.ceil(survivors.c / tile_channels) * tile_channels)
    alive = torch.zeros(total, dtype=torch.bool).index_fill_(0, survivors.channels, True)
    alive[(~alive).nonzero().flatten()[: wanted - survivors.c]] = True
    return replace(survivors, channels=None if wanted == total else alive.nonzero().flatten(), c=wanted)


def run_compact(packed: PackedCompact, x: Tensor, residual: Tensor | None = None, *, inner: KernelSpec) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'] in the layout of `inner`, or [N, C] to [N, K]."""
    if residual is not None:
        check_residual(residual, packed.removed.output_shape, x.dtype, inner.layout)
    if packed.inner is None:
        return packed.removed.output(len(x), residual)
    survivors = packed.survivors
    x = _taken(x, packed.taken, survivors.channels)
    if survivors.filters is None:
        return inner.run(packed.inner, x, residual)
    if residual is None and packed.put is not None:
        return put_channels(packed.put, inner.run(packed.inner, x), packed.removed.constant)
    kept = None if residual is None else _taken(residual, packed.put, survivors.filters)
    y = inner.run(packed.inner, x, kept)
    return packed.removed.output(len(x), residual).index_copy_(1, survivors.filters, y)


def _taken(x: Tensor, channels: KeptChannels | None, index: Tensor | None) -> Tensor:
    if channels is not None:
        return take_channels(channels, x)
    return x if index is None else x.index_select(1, index)


def _channels_are_innermost(kernel: KernelSpec) -> bool:
    return kernel.layout == "nhwc" or kernel.op == "linear"


def removed_filters(
    problem: Problem, bias: Tensor | None, relu: bool, quantisation: Quantisation | None = None, *, layout: Layout
) -> RemovedFilters:
    """What each filter of a problem gives once it is removed."""
    dtype = dense.TORCH_DTYPES[problem.dtype]
    least = 0 if relu else None
    if quantisation is not None:
        layer = quantise_layer(torch.zeros(problem.c_out, 1), bias, relu, quantisation)
        # Far beyond a byte, with room to add one.
        alone, least = torch.from_numpy(layer.scaled_bias().clip(-BIAS_MAX, BIAS_MAX).astype(np.int32)), layer.low
        constant = (alone + layer.y_zero_point).clamp(least, STORED_MAX).to(dtype)
    else:
        alone = torch.zeros(problem.c_out, dtype=dtype) if bias is None else bias.detach().to(dtype, copy=True)
        constant = alone.clamp(min=0.0) if relu else alone
    return RemovedFilters(bias=alone, constant=constant, least=least, output_shape=problem.output_shape, layout=layout)


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


def compact_cost(problem: Problem, *, inner: KernelSpec, tile_channels: int = 1) -> Cost:
    """Cost of the smaller dense layer, plus gathering its input and scattering its output where these shrink."""
    k, c, _ = reduced_sizes(problem)
    c = min(problem.c_in, math.ceil(c / tile_channels) * tile_channels)
    reduced = replace(problem.as_dense(), c_in=c, c_out=k)
    cost = inner.cost(reduced)
    # Half of what is read and written. Where channels are innermost, all of the input is read and the output is written
    # in one go; elsewhere only what is kept is read, and the output is filled with constants first.
    innermost = _channels_are_innermost(inner)
    read = (problem if innermost else reduced).input_bytes
    gathered = (read + reduced.input_bytes) / 2.0 if c < problem.c_in else 0.0
    filled_first = 0.0 if innermost else reduced.output_bytes
    scattered = (reduced.output_bytes + problem.output_bytes + filled_first) / 2.0 if k < problem.c_out else 0.0
    return dense.with_copies(cost, gathered + scattered)


def why_compact_unsupported(problem: Problem, machine: Machine, *, inner: KernelSpec) -> str | None:
    """Whatever keeps `inner` from running, grouped layers, and patterns that remove no whole filter or channel."""
    if problem.groups > 1:
        return f"compaction needs one group, the problem has {problem.groups}"
    removable = {"filter", "channel", "shape"} if problem.kernel == (1, 1) else {"filter", "channel"}
    if removable.isdisjoint(parse_pattern(problem.pattern).kinds):
        height, width = problem.kernel
        return f"pattern {problem.pattern!r} removes no whole filter or channel of a {height}x{width} kernel"
    return inner.why_unsupported(problem, machine)


def compact_kernel(inner: KernelSpec, *, tile_channels: int = 1) -> KernelSpec:
    """Run what is left through `inner`, which reads `tile_channels` input channels together."""
    return KernelSpec(
        name=inner.name.replace("_dense_", "_compact_").replace("_tiles_", "_compact_"),
        op=inner.op,
        patterns=("filter", "channel", "shape"),
        dtype=inner.dtype,
        isa=inner.isa,
        layout=inner.layout,
        pack=partial(pack_compact, inner=inner, tile_channels=tile_channels),
        run=partial(run_compact, inner=inner),
        cost=partial(compact_cost, inner=inner, tile_channels=tile_channels),
        why_unsupported=partial(why_compact_unsupported, inner=inner),
    )


_DENSE = {kernel.name: kernel for kernel in dense.KERNELS}

KERNELS: tuple[KernelSpec, ...] = (
    compact_kernel(_DENSE["conv2d_dense_f32_nhwc__onednn"]),
    compact_kernel(_DENSE["conv2d_dense_bf16_nhwc__onednn"]),
    compact_kernel(_DENSE["linear_dense_f32_nchw__onednn"]),
    compact_kernel(_DENSE["linear_dense_f32_nchw__torch"]),
    compact_kernel(_DENSE["linear_dense_bf16_nchw__onednn"]),
    *(
        compact_kernel(kernel, tile_channels=tile_sparse.ROW_BYTES // DTYPE_BYTES[kernel.dtype])
        for kernel in tile_sparse.KERNELS
    ),
)
