"""Tile-sparse convolution and linear on AMX: a weight tile of 16 output channels by 64 bytes of input channels is
multiplied with tiles of 16 pixels that are read where they lie, channels innermost; tiles of zeros are not stored.

``C[16 pixels, 16 outputs] += A[16 pixels, 64 bytes of channels] * B[64 bytes of channels, 16 outputs]``: one B stays in
its register for up to four A. Consecutive pixels lie `position_bytes` apart, which is all that a tile load needs, so
convolutions without padding and with stride 1 read the caller's memory in place, and a 1x1 convolution is a linear over
all pixels of the batch. Others copy each image into zero-padded phases (`phases`), whose positions replace pixels;
the few garbage positions at the ends of the rows are computed and not written.

References
----------
Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor  # before _native: the extension must share torch's OpenMP runtime

from . import _native
from .check import check_weights
from .dense import SHORT_DTYPES
from .groups import free_density
from .native_layer import run_native, to_numpy
from .pattern import BlockPart, SasPart, parse_pattern
from .phases import Phases, phases_of, tap_offsets
from .problem import DTYPE_BYTES, Dtype, Op, Problem
from .quantisation import Quantisation, quantise_layer, why_sums_overflow
from .spec import Cost, KernelSpec, Machine, Unit

ISA = "amx"
TILE_ROWS = 16
"""Pixels of a tile, and output channels of a weight tile."""
ROW_BYTES = 64
"""Input channels of a tile."""
TILE_BYTES = TILE_ROWS * ROW_BYTES
MAX_TILES = 4
"""Of pixels that one weight tile meets: four of the eight registers hold sums."""
SUM_BYTES = 4
ALIAS_BYTES = 512
"""Positions a multiple of this apart share few sets of a level-1 cache (64 sets of 64 bytes)."""
L1_BYTES = 36 * 1024
"""Of the 48 KiB of the cores that have AMX, what the pixels of a group may take beside weights and sums."""
PRODUCT_CYCLES = 16.0
"""Datasheet: one row of A a cycle."""
L1_TILE_CYCLES, L2_TILE_CYCLES = 8.0, TILE_BYTES / 48.0
"""Assumed: a tile load moves two lines a cycle from level 1, and 48 bytes a cycle from level 2 (Intel 64 and IA-32
Architectures Optimization Reference Manual, Sapphire Rapids)."""
UNITS: dict[Dtype, Unit] = {"bfloat16": "tile_bf16", "int8": "tile_int8"}
STRIP_BLOCKS: dict[Dtype, int] = {"bfloat16": 2, "int8": 1}
"""Blocks of 16 output channels that are written together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileLayout:
    """How a problem is laid out for the tiles.

    Attributes
    ----------
    is_run : bool
        Whether the pixels of the whole batch are one image, of one pixel a row.
    images : int
    phases : Phases
        Of one image.
    copies_input : bool
        False where the caller's memory already is what the tiles read.
    group_room, position_bytes : int
        Bytes that the channels of a group take, and from one position to the next.
    tiles : int
        Tiles of 16 positions that meet a weight tile while it is in its register.
    """

    is_run: bool
    images: int
    phases: Phases
    copies_input: bool
    group_room: int
    position_bytes: int
    tiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TileWork:
    """What a run does in units of tiles, all images together.

    Attributes
    ----------
    products : float
        Of a weight tile and a tile of 16 positions; each loads its positions.
    weight_loads : float
        Weight tiles that are loaded.
    stores : float
        Tiles of sums that are stored, to be read again and written as outputs.
    weight_tiles : float
        Weight tiles that are packed.
    """

    products: float
    weight_loads: float
    stores: float
    weight_tiles: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTiles:
    """Weights ready to run, for exactly one problem."""

    problem: Problem
    native: _native.TileSparse


def tile_layout(problem: Problem) -> TileLayout:
    """Lay a problem out for tiles of its dtype."""
    c_group = problem.weight_shape[1]
    group_bytes = c_group * DTYPE_BYTES[problem.dtype]
    in_place = problem.padding == (0, 0) and problem.stride == (1, 1) and group_bytes % ROW_BYTES == 0
    is_run = in_place and problem.kernel == (1, 1)
    pixels = problem.n * problem.h_out * problem.w_out
    if is_run:
        phases = Phases(phases_h=(0,), phases_w=(0,), rows=pixels, pitch=1, phase_positions=pixels, positions=pixels)
    else:
        phases = phases_of(problem)
    group_room = math.ceil(group_bytes / ROW_BYTES) * ROW_BYTES
    position_bytes = problem.groups * group_room
    if not in_place and position_bytes % ALIAS_BYTES == 0:
        position_bytes += ROW_BYTES
    return TileLayout(
        is_run=is_run,
        images=1 if is_run else problem.n,
        phases=phases,
        copies_input=not in_place,
        group_room=group_room,
        position_bytes=position_bytes,
        tiles=_choose_tiles(phases, position_bytes),
    )


def tile_work(problem: Problem) -> TileWork:
    """Expected tiles of a random weight under the problem's pattern."""
    layout = tile_layout(problem)
    pixel_tiles = math.ceil(layout.phases.positions / TILE_ROWS)
    groups = math.ceil(pixel_tiles / layout.tiles)
    block_rows = problem.groups * math.ceil(problem.c_out // problem.groups / TILE_ROWS)
    block_columns = layout.group_room // ROW_BYTES * math.prod(problem.kernel)
    weight_tiles = block_rows * block_columns * tile_density(problem)
    return TileWork(
        products=layout.images * pixel_tiles * weight_tiles,
        weight_loads=layout.images * groups * weight_tiles,
        stores=float(layout.images * pixel_tiles * block_rows),
        weight_tiles=weight_tiles,
    )


def tile_density(problem: Problem) -> float:
    """Expected share of weight tiles that hold a non-zero weight.

    A tile goes only where all blocks of the pattern in it go; other patterns leave something in nearly every tile.
    """
    pattern = parse_pattern(problem.pattern)
    density, share = free_density(pattern, problem.sparsity), 1.0
    depth = ROW_BYTES // DTYPE_BYTES[problem.dtype]
    for part in pattern.parts:
        if isinstance(part, BlockPart) and part.name.startswith("block:"):
            k, c, _, _ = part.block
            blocks = math.ceil(TILE_ROWS / (k or TILE_ROWS)) * math.ceil(depth / (c or depth))
            share *= 1.0 - (1.0 - density) ** blocks
    return share


def pack_tiles_bf16(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, isa: str) -> PackedTiles:
    """Pack a dense weight [K, C, R, S] that contains zeros, rounded to bfloat16.

    Raises
    ------
    InputError
        If the weight or the bias does not have the shape and dtype of the problem.
    """
    check_weights(problem, weight, bias)
    layout = tile_layout(problem)
    native = _native.TileSparse(
        isa=isa,
        shape=_native_shape(problem, layout, relu=relu, fill=0),
        phases_h=list(layout.phases.phases_h),
        phases_w=list(layout.phases.phases_w),
        weight=to_numpy(weight).reshape(*problem.weight_shape[:2], -1),
        taps=_taps(problem, layout),
        bias=None if bias is None else to_numpy(bias),
    )
    return PackedTiles(problem=problem, native=native)


def pack_tiles_int8(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, quantisation: Quantisation, *, isa: str
) -> PackedTiles:
    """Pack a dense weight [K, C, R, S] that contains zeros, quantised by output channel.

    Raises
    ------
    InputError
        If the weight or the bias does not have the shape and dtype of the problem, or cannot be quantised.
    """
    check_weights(problem, weight, bias)
    layout = tile_layout(problem)
    layer = quantise_layer(weight, bias, relu, quantisation)
    native = _native.TileSparse(
        isa=isa,
        shape=_native_shape(problem, layout, relu=relu, fill=layer.x_zero_point),
        phases_h=list(layout.phases.phases_h),
        phases_w=list(layout.phases.phases_w),
        weight=layer.weight.reshape(*problem.weight_shape[:2], -1),
        taps=_taps(problem, layout),
        bias=layer.folded_bias(),
        multiplier=layer.multiplier,
        shift=layer.shift,
        zero_point=layer.y_zero_point,
        low=layer.low,
    )
    return PackedTiles(problem=problem, native=native)


def run_tiles(packed: PackedTiles, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both channels_last, or [N, C] to [N, K], on all of torch's threads.

    Raises
    ------
    InputError
        If `x` has another shape or dtype than the problem, or `residual` is not like the output.
    """
    return run_native(packed.problem, packed.native, x, residual, layout="nhwc")


def tiles_cost(problem: Problem) -> Cost:
    """Work of one run, padding to tiles included.

    Every product loads a tile of pixels; sums are stored, read again and written as outputs.
    """
    layout, work = tile_layout(problem), tile_work(problem)
    depth = ROW_BYTES // DTYPE_BYTES[problem.dtype]
    copied = float(layout.images * layout.phases.held * layout.position_bytes) if layout.copies_input else 0.0
    return Cost(
        unit=UNITS[problem.dtype],
        flop=2.0 * work.products * TILE_ROWS * TILE_ROWS * depth,
        bytes_streamed=(work.products + work.weight_loads + 2.0 * work.stores) * TILE_BYTES + problem.output_bytes,
        bytes_moved=problem.input_bytes + problem.output_bytes + work.weight_tiles * TILE_BYTES,
        tasks=_tasks(problem, layout),
        bytes_copied=2.0 * copied,
    )


def why_tiles_unsupported(problem: Problem, machine: Machine, *, op: Op, dtype: Dtype) -> str | None:
    """The reason why tiles cannot run a problem, or None."""
    if problem.op != op:
        return f"runs {op}, not {problem.op}"
    if problem.dtype != dtype:
        return f"computes in {dtype}, not {problem.dtype}"
    if machine.device != "cpu":
        return f"runs on the CPU only, the machine is {machine.device!r}"
    if ISA not in machine.isa:
        return f"needs {ISA}, this machine allows {', '.join(machine.isa) or 'no CPU instruction set'}"
    for part in parse_pattern(problem.pattern).parts:
        if isinstance(part, SasPart):
            return f"pattern {part.name!r} sparsifies activations, which this kernel does not pack"
    c_group = problem.weight_shape[1]
    if problem.groups > 1 and 2 * c_group * DTYPE_BYTES[dtype] < ROW_BYTES:
        return f"groups of {c_group} channels fill less than half of a tile's {ROW_BYTES // DTYPE_BYTES[dtype]}"
    layout = tile_layout(problem)
    if max(layout.phases.held * layout.position_bytes, layout.phases.positions) >= 2**31:
        return "an image exceeds 2 GiB"
    return why_sums_overflow(problem) if dtype == "int8" else None


def _choose_tiles(phases: Phases, position_bytes: int) -> int:
    """Tiles of pixels a weight tile meets: more of them share its load, fewer of them stay in level 1.

    Weight tiles come from level 2: all of them pass between two uses of one.
    """
    count = math.ceil(phases.positions / TILE_ROWS)
    halo = phases.phase_positions - phases.positions

    def cycles(tiles: int) -> float:
        touched = (tiles * TILE_ROWS + halo) * position_bytes
        load = L1_TILE_CYCLES if touched <= L1_BYTES else L2_TILE_CYCLES
        together = (*[tiles] * (count // tiles), count % tiles)
        return sum(max(L2_TILE_CYCLES + load * some, PRODUCT_CYCLES * some) for some in together if some)

    return min(range(MAX_TILES, 0, -1), key=cycles)


def _taps(problem: Problem, layout: TileLayout) -> list[int]:
    if layout.is_run:
        return [0]
    phases = layout.phases
    taps = tap_offsets(problem, phase_step=phases.phase_positions, row_step=phases.pitch, column_step=1)
    return [int(position) for position in taps.ravel()]


def _native_shape(problem: Problem, layout: TileLayout, *, relu: bool, fill: int) -> _native.TilesShape:
    phases = layout.phases
    sizes = (problem.h_in, problem.w_in, problem.h_out, problem.w_out)
    h_in, w_in, h_out, w_out = (phases.rows, 1, phases.rows, 1) if layout.is_run else sizes
    return _native.TilesShape(
        images=layout.images,
        positions=phases.positions,
        tiles=layout.tiles,
        c_in=problem.c_in,
        h_in=h_in,
        w_in=w_in,
        c_out=problem.c_out,
        h_out=h_out,
        w_out=w_out,
        stride_h=problem.stride[0],
        stride_w=problem.stride[1],
        pad_h=problem.padding[0],
        pad_w=problem.padding[1],
        groups=problem.groups,
        group_room=layout.group_room,
        position_bytes=layout.position_bytes,
        rows=phases.rows,
        pitch=phases.pitch,
        phase_positions=phases.phase_positions,
        copies_input=layout.copies_input,
        relu=relu,
        fill=fill,
    )


def _tasks(problem: Problem, layout: TileLayout) -> int:
    """Pieces that threads share, as run_tiles in native/tiles/run.inc.h cuts them."""
    threads = problem.threads
    if layout.images % threads == 0 or layout.images >= 4 * threads:
        return layout.images
    groups = math.ceil(math.ceil(layout.phases.positions / TILE_ROWS) / layout.tiles)
    strips = problem.groups * math.ceil(problem.c_out // problem.groups / (TILE_ROWS * STRIP_BLOCKS[problem.dtype]))
    return groups * min(math.ceil(4 * threads / groups), strips)


def _tiles(op: Op, dtype: Dtype) -> KernelSpec:
    return KernelSpec(
        name=f"{op}_tiles_{SHORT_DTYPES[dtype]}_{'nhwc' if op == 'conv2d' else 'nchw'}__{ISA}",
        op=op,
        # In int8 no library kernel is there to run a dense layer.
        patterns=("block", "dense") if dtype == "int8" else ("block",),
        dtype=dtype,
        isa=ISA,
        layout="nhwc" if op == "conv2d" else "nchw",
        pack=partial(pack_tiles_bf16 if dtype == "bfloat16" else pack_tiles_int8, isa=ISA),
        run=run_tiles,
        cost=tiles_cost,
        why_unsupported=partial(why_tiles_unsupported, op=op, dtype=dtype),
    )


_OPS: tuple[Op, ...] = ("conv2d", "linear")
_DTYPES: tuple[Dtype, ...] = ("bfloat16", "int8")
KERNELS: tuple[KernelSpec, ...] = tuple(_tiles(op, dtype) for op in _OPS for dtype in _DTYPES)
