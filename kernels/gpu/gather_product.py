"""Block-sparse and column-sparse linears and convolutions on a GPU: Triton products that leave tiles of zeros out.

A convolution is an implicit matrix product over channels-last activations: each column of the reduction is one channel
at one tap, and lies at a fixed distance from the window of an output pixel. Strips of output channels hold lists of the
columns they keep (`column_lists`), whatever put the zeros there: blocks, whole columns of all outputs (SSL's shapes and
channels, gathered here without a copy), columns that a few outputs share (V:N:M), any stride, dilation, padding or
grouping. Within the columns of V:N:M that are left, the n of 2 n are multiplied with their zeros: mma.sp would skip
these, but takes its sparse operand and the places of its values in an order that Triton does not give.

Single channels of channels-last rows are gathered value by value. Linears may instead turn their input first, one pass
over it, and then find the rows of each channel side by side, 16 bytes and more in one load.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor

from ..check import check_tensor, check_weight_shapes
from ..dense import SHORT_DTYPES, TORCH_DTYPES
from ..errors import UnsupportedError
from ..groups import free_density
from ..layout import check_residual, empty_activation, memory_format
from ..pattern import BlockPart, NmPart, Pattern, parse_pattern
from ..problem import DTYPE_BYTES, Dtype, Op, Problem
from ..spec import Cost, GpuUnit, KernelSpec, Layout, Machine
from .column_lists import REACH_BITS, ColumnLists, Tile, column_lists, strips_of
from .eligibility import why_no_triton, why_not_here
from .machine import TRITON

Innermost = Literal["channels", "rows"]
"""What lies side by side in the input that a product reads."""
UNITS: dict[Dtype, GpuUnit] = {"float32": "gpu_tf32x3", "bfloat16": "gpu_bf16", "float16": "gpu_f16"}
PRECISION = "tf32x3"
"""Of float32 products: three of TF32 in place of one keep its error limit (Ootomo and Yokota, Recovering single
precision accuracy from Tensor Cores, 2022). Other dtypes ignore it."""
LEAST_SIDE = 16
"""Least side of a tile of a Triton product, and of the blocks that are worth skipping one by one."""
MOST_OUTPUTS = 128
DEPTHS: dict[Dtype, int] = {"float32": 32, "bfloat16": 64, "float16": 64}
"""Columns of a step: 128 bytes, a line of the L2 cache and the widest swizzle of shared memory."""
MOST_PIXELS: dict[Dtype, int] = {"float32": 64, "bfloat16": 128, "float16": 128}
"""Of a tile: what leaves room for its sums and addresses in the registers (see `compile_ahead`; larger ones spill)."""
VECTOR_RUN = 8
"""Shorter runs are addressed channel by channel, which takes more registers."""
STAGES: dict[Dtype, int] = {"float32": 6, "bfloat16": 8, "float16": 8}
"""For Triton's pipeliner, which runs two stages ahead for each buffer, as places are loaded before what lies there: 3
and 4 buffers in shared memory, so that two tiles fit into a multiprocessor."""
MANY_SUMS: dict[Dtype, int] = {"float32": 64 * 64, "bfloat16": 128 * 64, "float16": 128 * 64}
"""Of a tile: more are shared by eight warps."""
FEW_TILES = 264
"""Twice the multiprocessors of the largest GPUs in use: fewer tiles are made smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedProduct:
    """Weights ready to run, for exactly one problem, on the device of `lists`."""

    problem: Problem
    tile: Tile
    lists: ColumnLists
    bias: Tensor | None
    relu: bool
    layout: Layout
    innermost: Innermost
    device_code: Any


def tile_of(problem: Problem, innermost: Innermost = "channels") -> Tile:
    """How a problem is cut: by its blocks, its pixels and the channels of its groups."""
    pattern = parse_pattern(problem.pattern)
    k_group, c_group = problem.c_out // problem.groups, problem.weight_shape[1]
    depth = DEPTHS[problem.dtype]
    blocks = [part.block for part in _blocks(pattern)]
    outputs = _power_between(min([k_group, *(k for k, *_ in blocks if k)]), LEAST_SIDE, MOST_OUTPUTS)
    # A run lies within one block of every part, and divides the channels of a group.
    run = math.gcd(c_group, depth, *(c for _, c, *_ in blocks if c)) if innermost == "channels" else 1
    is_vector = run >= VECTOR_RUN or innermost == "rows"
    pixels_of_all = problem.n * problem.h_out * problem.w_out
    most = MOST_PIXELS[problem.dtype] if is_vector else MOST_PIXELS["float32"]
    pixels = _power_between(pixels_of_all, LEAST_SIDE, most)
    while pixels > 4 * LEAST_SIDE and math.ceil(pixels_of_all / pixels) * strips_of(problem, outputs) < FEW_TILES:
        pixels //= 2
    return Tile(
        pixels=pixels,
        outputs=outputs,
        depth=depth,
        run=run,
        warps=8 if pixels * outputs > MANY_SUMS[problem.dtype] or (not is_vector and outputs > 64) else 4,
        stages=STAGES[problem.dtype],
    )


def pack_product(
    problem: Problem,
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    *,
    layout: Layout,
    innermost: Innermost = "channels",
    tile: Tile | None = None,
) -> PackedProduct:
    """List the columns of a dense weight [K, C, R, S] that contains zeros, on the weight's own device.

    Parameters
    ----------
    tile : Tile or None
        That of `tile_of` when left out.

    Raises
    ------
    InputError
        If the weight or the bias does not have the shape of the problem.
    """
    check_weight_shapes(problem, weight, bias)
    tile = tile or tile_of(problem, innermost)
    return PackedProduct(
        problem=problem,
        tile=tile,
        lists=column_lists(problem, weight, tile, dtype=TORCH_DTYPES[problem.dtype]),
        bias=None if bias is None else bias.detach().float(),
        relu=relu,
        layout=layout,
        innermost=innermost,
        device_code=importlib.import_module(f"{__package__}.triton_gather_product"),
    )


def run_product(packed: PackedProduct, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both channels_last, or [N, C] to [N, K].

    Raises
    ------
    InputError
        If `x` has another shape, dtype or device than what was packed, or `residual` is not like the output.
    UnsupportedError
        If Triton cannot compile or launch the product on this device.
    """
    problem, lists, tile = packed.problem, packed.lists, packed.tile
    dtype, device = TORCH_DTYPES[problem.dtype], lists.values.device
    check_tensor("input", x, problem.input_shape, dtype, device=device)
    if residual is not None:
        check_residual(residual, problem.output_shape, dtype, packed.layout, device=device)
    x = x.contiguous(memory_format=memory_format(x.dim(), packed.layout))
    y = empty_activation(problem.output_shape, dtype, packed.layout, device=device)
    pixels = problem.n * problem.h_out * problem.w_out
    if packed.innermost == "rows":
        x = _turned(x, tile)
    strips = len(lists.order)
    arguments = (
        x,
        lists.values,
        lists.starts,
        lists.reach,
        lists.bounds,
        lists.order,
        packed.bias,
        residual,
        y,
        pixels,
        strips,
        problem.c_in,
        problem.h_in,
        problem.w_in,
        problem.h_out,
        problem.w_out,
        problem.c_out,
        problem.c_out // problem.groups,
        strips // problem.groups,
        *problem.stride,
        *problem.padding,
        x.stride(0) if packed.innermost == "rows" else 0,
    )
    fixed = constants(
        problem,
        tile,
        relu=packed.relu,
        has_bias=packed.bias is not None,
        adds=residual is not None,
        innermost=packed.innermost,
    )
    launch = packed.device_code.gather_product[(math.ceil(pixels / tile.pixels) * strips,)]
    try:
        launch(*arguments, **fixed, num_warps=tile.warps, num_stages=tile.stages)
    except packed.device_code.FAILURE as failure:
        raise UnsupportedError(
            f"Triton cannot run {problem} in tiles of {tile} on this GPU ({failure}); plan again without its pattern"
        ) from failure
    return y


def _turned(x: Tensor, tile: Tile) -> Tensor:
    """[N, C] as [C, N], padded to whole tiles of rows, of which those beyond N hold anything."""
    turned = x.new_empty(x.shape[1], math.ceil(x.shape[0] / tile.pixels) * tile.pixels)
    turned[:, : x.shape[0]].copy_(x.t())
    return turned


def constants(
    problem: Problem, tile: Tile, *, relu: bool, has_bias: bool, adds: bool, innermost: Innermost = "channels"
) -> dict[str, Any]:
    """What the device code is compiled for."""
    return {
        "HAS_BIAS": has_bias,
        "HAS_RESIDUAL": adds,
        "RELU": relu,
        "PADDED": problem.padding != (0, 0),
        "TURNED": innermost == "rows",
        "PIXELS": tile.pixels,
        "OUTPUTS": tile.outputs,
        "DEPTH": tile.depth,
        "RUN": tile.run,
        "PRECISION": PRECISION,
    }


def specialisation(problem: Problem, innermost: Innermost = "channels") -> tuple[object, ...]:
    """What decides whether problems share compiled code: all that Triton compiles for, as `run_product` calls it."""
    tile = tile_of(problem, innermost)
    sizes = (problem.c_in, problem.c_out, problem.c_out // problem.groups)
    fixed = constants(problem, tile, relu=True, has_bias=True, adds=False, innermost=innermost)
    return (problem.dtype, *fixed.values(), tile.warps, tile.stages, *((size == 1, size % 16 == 0) for size in sizes))


def product_cost(problem: Problem, *, innermost: Innermost = "channels") -> Cost:
    """Work of one run under a random weight of the pattern, padding to tiles and steps included.

    Every step of a tile loads its pixels and its weights, through the L2 cache.
    """
    tile = tile_of(problem, innermost)
    pixel_tiles = math.ceil(problem.n * problem.h_out * problem.w_out / tile.pixels)
    strips = strips_of(problem, tile.outputs)
    runs = math.prod(problem.weight_shape[1:]) // tile.run * run_density(problem, tile)
    steps = strips * math.ceil(runs / (tile.depth // tile.run))
    value_bytes = DTYPE_BYTES[problem.dtype]
    return Cost(
        unit=UNITS[problem.dtype],
        flop=2.0 * pixel_tiles * steps * tile.pixels * tile.outputs * tile.depth,
        bytes_streamed=pixel_tiles * steps * (tile.pixels + tile.outputs) * tile.depth * value_bytes
        + problem.output_bytes,
        bytes_moved=problem.input_bytes + problem.output_bytes + steps * tile.outputs * tile.depth * value_bytes,
        tasks=pixel_tiles * strips,
        bytes_copied=0.0 if innermost == "channels" else 2.0 * problem.input_bytes,
        starts=float(pixel_tiles * strips),
    )


def run_density(problem: Problem, tile: Tile) -> float:
    """Expected share of the runs of a strip that hold a non-zero weight: all blocks of the pattern in one must go."""
    pattern = parse_pattern(problem.pattern)
    free, share = free_density(pattern, problem.sparsity), 1.0
    shared = {part.name: part.columns / part.m for part in pattern.parts if isinstance(part, NmPart)}
    for part in _blocks(pattern):
        k, c, _, _ = part.block
        density = shared.get(part.name, free)
        blocks = math.ceil(tile.outputs / (k or tile.outputs)) * math.ceil(tile.run / (c or tile.run))
        share *= 1.0 - (1.0 - density) ** blocks
    return share


def why_product_unsupported(problem: Problem, machine: Machine, *, op: Op, dtype: Dtype) -> str | None:
    """The reason why the product cannot run a problem, or does not skip anything of it, or None."""
    if reason := why_not_here(problem, machine, op=op, dtype=dtype) or why_no_triton(machine):
        return reason
    if not _blocks(parse_pattern(problem.pattern)) or parse_pattern(problem.pattern).slots > 1:
        return f"skips blocks, shapes, channels and columns of V:N:M; the pattern is {problem.pattern!r}"
    for part in _blocks(parse_pattern(problem.pattern)):
        if any(side is not None and side > 1 and side % LEAST_SIDE for side in part.block) or part.block[0] == 1:
            return f"tiles need blocks of multiples of {LEAST_SIDE} x {LEAST_SIDE}; the pattern is {problem.pattern!r}"
    if problem.groups > 1 and problem.c_out // problem.groups < LEAST_SIDE:
        return f"groups of {problem.c_out // problem.groups} output channels fill no tile of {LEAST_SIDE}"
    reach = max((taps - 1) * dilation for taps, dilation in zip(problem.kernel, problem.dilation, strict=True))
    most = max(math.prod(problem.input_shape), math.prod(problem.output_shape), problem.weight_count)
    if reach >= 1 << (REACH_BITS - 1) or most >= 2**31:
        return f"offsets are 32 bits: at most 2^31 values and a reach of 2^{REACH_BITS - 1} pixels"
    return None


def _blocks(pattern: Pattern) -> tuple[BlockPart, ...]:
    """The parts whose zeros are whole columns of a strip: ``block:KxC``, shapes, channels, and columns of V:N:M."""
    found = []
    for part in pattern.parts:
        if isinstance(part, BlockPart) and (part.name.startswith("block:") or part.name in ("shape", "channel")):
            found.append(part)
        if isinstance(part, NmPart) and part.v > 1:
            found.append(BlockPart(name=part.name, block=(part.v, 1, 1, 1)))
    return tuple(found)


def _power_between(count: int, least: int, most: int) -> int:
    """The least power of two that is not below `count`, within bounds that are powers of two."""
    return min(max(1 << (count - 1).bit_length(), least), most)


def innermost_of(kernel: KernelSpec) -> Innermost:
    """What lies side by side in the input that a kernel of these reads."""
    return "rows" if "_turned_" in kernel.name else "channels"


def _kernel(op: Op, dtype: Dtype, what: str, patterns: tuple[str, ...], innermost: Innermost) -> KernelSpec:
    layout: Layout = "nhwc" if op == "conv2d" else "nchw"
    return KernelSpec(
        name=f"{op}_{what}_{SHORT_DTYPES[dtype]}_{'turned_' if innermost == 'rows' else ''}{layout}__triton",
        op=op,
        patterns=patterns,
        dtype=dtype,
        isa=TRITON,
        layout=layout,
        pack=partial(pack_product, layout=layout, innermost=innermost),
        run=run_product,
        cost=partial(product_cost, innermost=innermost),
        why_unsupported=partial(why_product_unsupported, op=op, dtype=dtype),
        device="cuda",
    )


_OPS: tuple[Op, ...] = ("conv2d", "linear")
_DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
_COLUMNS = ("shape", "channel", "v:n:m")
_FAMILIES: tuple[tuple[Op, str, tuple[str, ...], Innermost], ...] = (
    *((op, "blocks", ("block",), "channels") for op in _OPS),
    *((op, "columns", _COLUMNS, "channels") for op in _OPS),
    ("linear", "columns", _COLUMNS, "rows"),
)
KERNELS: tuple[KernelSpec, ...] = tuple(
    _kernel(op, dtype, what, patterns, innermost) for dtype in _DTYPES for op, what, patterns, innermost in _FAMILIES
)
