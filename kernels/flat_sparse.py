"""Flat sparse convolution: one inner kernel for every stride, padding, dilation and grouping.

For output channel k and a run of flat positions p of the output, ``out[k][p] = bias[k] + sum over the non-zeros j of k
of value_j * in[offset_j + p]``. The input is copied into zero-padded *phases*: with stride s, phase a holds the padded
rows (columns) a, a + s, a + 2 s, ...; a tap at distance d = r * dilation then reads phase d mod s at shift d div s, and
every stride becomes a unit stride. Two forms of this copy feed the inner kernel: one image at a time, a vector covering
consecutive positions ("flat"), or as many images as a vector has lanes, interleaved ("n16": all loads aligned). Input
and output lie in memory as NCHW, channels_last, or blocked, which is interleaved already. A pointwise convolution is
copied a tile at a time, into memory that stays in level 2; interleaved images out of channels_last or blocked memory a
tile and a few channels at a time (a *window*), where a copy of it all would lie far and neighbouring tiles do not copy
the same input too often.

The inner kernel has two forms. One output channel and a tile that fills the registers: each non-zero does much work,
but few input channels of such a tile fit level 1, and sums pass through memory between blocks of them. Or a *quad*:
four output channels of like length at a time and a tile of a few vectors. Several times as many input channels fit, and
the ends of rows, which are mispredicted, are fewer. The first wins for 3x3, whose rim a small tile would load again.

References
----------
Park et al., Faster CNNs with direct sparse convolutions and guided pruning, ICLR 2017, section 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor  # before _native: the extension must share torch's OpenMP runtime

from . import _native
from .check import check_weights
from .cpu import cache_bytes
from .flat_tiling import AHEAD_FRAC, Area, Tile, Tiling, choose_tiling
from .layout import BLOCK_IMAGES, native_layout
from .native_layer import INSTRUCTION_SETS, InstructionSet, run_native, to_numpy
from .phases import Phases, halo_of, phases_of, tap_offsets
from .problem import DTYPE_BYTES, Dtype, Problem
from .spec import Layout

ENTRY_BYTES = 8
"""One packed non-zero: value and offset."""
LINE_BYTES = 64
"""Of a cache line."""
ALIAS_BYTES = 4096
"""Channels this far apart share the same sets of a level-1 cache (32 KiB, 8 ways)."""
OFFSET_LIMIT = 2**32
WHOLE_LEVEL_2 = 3.5
OVERLAP = 6.0
NHWC_OVERLAP = 2.5
"""Windows are copied where one copy of the whole input would take more than so many level-2 caches (measured on Zen 5:
below, windows took up to a tenth longer), unless those of all tiles together copy so many times what that one does."""
LAST_CACHE_FRAC = 0.5
"""Share of the last cache that an output may fill: above it, stores past the caches wrote twice as much a second."""

FLAT_VARIANTS = (
    *INSTRUCTION_SETS,
    InstructionSet(name="avx512", lanes=8, max_tile=28, guarded_loads=True, max_quad=6),
)
"""The instruction sets, and AVX-512 with vectors of 8 floats: where a core does two multiply-adds of 8 lanes a cycle or
one of 16 (Zen 4), half-width vectors compute as fast and need half the cache for a tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatShape:
    """How a problem is laid out for the inner kernel; sizes in activations, called floats, unless named otherwise.

    Attributes
    ----------
    phases : Phases
        Of one image.
    images : int
        Images interleaved innermost; 1 for the flat layout.
    channel_floats : int
        From one channel to the next.
    area : Area
        Vectors that cover the output of a channel: one a pixel where images are interleaved, so that nothing is
        computed for the zeros between rows; else a single row over all flat positions.
    tiling : Tiling
        How the area and the channels are cut.
    copies_input : bool
        False where the caller's memory already is the padded input.
    copies_tiles : bool
        Whether the copy is made a tile at a time, which then stays in level 2: `channel_floats` is that of a tile.
    window_channels : int
        Input channels, of one or more blocks, that are copied under a tile before they are computed with: phases and
        `channel_floats` are those of such a window. 0 where the copy is not made so.
    asks_ahead : bool
        Whether the input of the next tile is asked for while one is computed with: both fit level 2.
    streams_output : bool
        Whether the output is written past the caches, which it would leave before it is read.
    """

    phases: Phases
    images: int
    channel_floats: int
    area: Area
    tiling: Tiling
    copies_input: bool
    copies_tiles: bool
    window_channels: int
    asks_ahead: bool
    streams_output: bool

    @property
    def phase_floats(self) -> int:
        """From one phase to the next."""
        return self.phases.phase_positions * self.images


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFlat:
    """Weights ready to run, for exactly one problem."""

    problem: Problem
    layout: Layout
    native: _native.FlatSparse


def flat_shape(problem: Problem, isa: InstructionSet, *, interleaved: bool, layout: Layout = "nchw") -> FlatShape:
    """Lay a problem out for the inner kernel of an instruction set.

    Parameters
    ----------
    interleaved : bool
        Whether the vectors run over images (else over positions of one image).
    layout : Layout
        Of input and output; a blocked one interleaves as many images as a vector has lanes.
    """
    phases = phases_of(problem)
    blocked, scalar_bytes = layout in BLOCK_IMAGES, DTYPE_BYTES[isa.dtype]
    images = BLOCK_IMAGES.get(layout) or (_interleaved_images(problem, isa) if interleaved else 1)

    channel_floats = phases.held * images
    in_place = (
        (blocked or (layout == "nchw" and not interleaved and isa.guarded_loads))
        and problem.padding == (0, 0)
        and problem.stride == (1, 1)
        and (blocked or channel_floats * scalar_bytes % ALIAS_BYTES != 0)
        and not (_is_pointwise(problem) and (blocked or channel_floats * scalar_bytes % LINE_BYTES != 0))
    )
    # Interleaving NCHW a tile at a time would read pieces of lines from every plane of every image.
    by_tiles = not in_place and _is_pointwise(problem) and (layout != "nchw" or images == 1)
    (halo_rows, halo_columns), phase_count = halo_of(problem), len(phases.phases_h) * len(phases.phases_w)
    if images == isa.lanes and not by_tiles:
        area = Area(
            rows=problem.h_out,
            columns=problem.w_out,
            halo_rows=halo_rows,
            halo_columns=halo_columns,
            phases=phase_count,
            channels_adjoin=layout == "nhwc",
        )
    else:
        positions, halo = phases.positions * images, halo_rows * phases.pitch + halo_columns
        area = Area(
            rows=1,
            columns=math.ceil(positions / isa.lanes),
            halo_rows=0.0,
            halo_columns=halo * images / isa.lanes,
            phases=phase_count,
            channels_adjoin=layout == "nhwc",
        )
    caches, window_unit = (cache_bytes(1), cache_bytes(2)), 0
    tiling = choose_tiling(problem, area, isa, caches)
    is_far = problem.c_in * channel_floats * scalar_bytes > WHOLE_LEVEL_2 * cache_bytes(2)
    if images == isa.lanes and layout != "nchw" and problem.groups == 1 and is_far and not (in_place or by_tiles):
        # Transposing takes as many channels as a vector has lanes.
        unit = isa.lanes if layout == "nhwc" else 1
        by_window = choose_tiling(problem, area, isa, caches, window_unit=unit)
        window = _window_of(phases, area, by_window.tile)
        copies = area.tiles(by_window.tile) * math.ceil(problem.c_out / by_window.k_block)
        if window.held * copies <= (NHWC_OVERLAP if layout == "nhwc" else OVERLAP) * phases.held:
            window_unit, tiling, phases, channel_floats = unit, by_window, window, window.held * images
    if by_tiles:
        channel_floats = tiling.tile.columns * isa.lanes
    if not in_place:
        # An odd number of lines apart, channels spread over all sets of the caches.
        line_floats = LINE_BYTES // scalar_bytes
        channel_floats = (math.ceil(channel_floats / line_floats) | 1) * line_floats
    return FlatShape(
        phases=phases,
        images=images,
        channel_floats=channel_floats,
        area=area,
        tiling=tiling,
        copies_input=not in_place,
        copies_tiles=by_tiles,
        window_channels=math.ceil(tiling.c_block / window_unit) * window_unit if window_unit > 0 else 0,
        asks_ahead=by_tiles
        and tiling.quad is not None
        and problem.stride == (1, 1)
        and problem.c_in * channel_floats * scalar_bytes <= AHEAD_FRAC * cache_bytes(2),
        streams_output=blocked and problem.output_bytes > LAST_CACHE_FRAC * cache_bytes(3),
    )


def pack_flat(
    problem: Problem,
    weight: Tensor,
    bias: Tensor | None,
    *,
    relu: bool,
    isa: InstructionSet,
    interleaved: bool,
    layout: Layout = "nchw",
) -> PackedFlat:
    """Pack a dense weight [K, C, R, S] that contains zeros.

    Raises
    ------
    InputError
        If the weight or the bias does not have the shape and dtype of the problem.
    """
    check_weights(problem, weight, bias)
    shape = flat_shape(problem, isa, interleaved=interleaved, layout=layout)
    _, channels, taps_h, taps_w = problem.weight_shape
    native_shape = _native.FlatShape(
        n=stored_images(problem, layout),
        c_in=problem.c_in,
        h_in=problem.h_in,
        w_in=problem.w_in,
        c_out=problem.c_out,
        h_out=problem.h_out,
        w_out=problem.w_out,
        stride_h=problem.stride[0],
        stride_w=problem.stride[1],
        pad_h=problem.padding[0],
        pad_w=problem.padding[1],
        images=shape.images,
        rows=shape.phases.rows,
        pitch=shape.phases.pitch,
        phase_floats=shape.phase_floats,
        channel_floats=shape.channel_floats,
        area_rows=shape.area.rows,
        area_columns=shape.area.columns,
        tile_rows=shape.tiling.tile.rows,
        tile_columns=shape.tiling.tile.columns,
        k_block=shape.tiling.k_block,
        c_blocks=shape.tiling.c_blocks,
        copies_input=shape.copies_input,
        copies_tiles=shape.copies_tiles,
        window_channels=shape.window_channels,
        window_blocks=shape.window_channels // shape.tiling.c_block,
        quad_rows=0 if shape.tiling.quad is None else shape.tiling.quad.rows,
        quad_columns=0 if shape.tiling.quad is None else shape.tiling.quad.columns,
        k_chunk=shape.tiling.k_chunk,
        asks_ahead=shape.asks_ahead,
        streams_output=shape.streams_output,
        layout=native_layout(layout),
    )
    native = _native.FlatSparse(
        isa=isa.name,
        lanes=isa.lanes,
        shape=native_shape,
        phases_h=list(shape.phases.phases_h),
        phases_w=list(shape.phases.phases_w),
        weight=_values(weight, isa.dtype).reshape(problem.c_out, -1),
        tap_offset=_tap_offsets(problem, shape),
        block_taps=shape.tiling.c_block * taps_h * taps_w,
        groups=problem.groups,
        group_offset=channels * shape.channel_floats,
        bias=None if bias is None else to_numpy(bias),
        relu=relu,
    )
    return PackedFlat(problem=problem, layout=layout, native=native)


def run_flat(packed: PackedFlat, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Run packed weights on an input of the packed problem's shape; the output is of the packed layout.

    Raises
    ------
    InputError
        If `x` has another shape or dtype than the problem, or `residual` is not like the output.
    """
    return run_native(packed.problem, packed.native, x, residual, layout=packed.layout)


def why_flat_unsupported(
    problem: Problem, isa: InstructionSet, *, interleaved: bool, layout: Layout = "nchw"
) -> str | None:
    """The reason why the sizes of a problem do not suit a layout, or None."""
    if interleaved and 2 * problem.n < isa.lanes:
        return f"batch {problem.n} fills less than half of the {isa.lanes} lanes that interleave images"
    shape = flat_shape(problem, isa, interleaved=interleaved, layout=layout)
    if problem.c_in * shape.channel_floats >= OFFSET_LIMIT:
        return f"the padded input of a block of {shape.images} images exceeds {OFFSET_LIMIT} floats"
    return None


def stored_images(problem: Problem, layout: Layout) -> int:
    """Images in memory: a blocked layout has whole blocks."""
    block = BLOCK_IMAGES.get(layout, 1)
    return math.ceil(problem.n / block) * block


def _window_of(phases: Phases, area: Area, tile: Tile) -> Phases:
    """What a tile reads of the phases of an image."""
    rows, pitch = tile.rows + int(area.halo_rows), tile.columns + int(area.halo_columns)
    return replace(phases, rows=rows, pitch=pitch, phase_positions=rows * pitch, positions=rows * pitch)


def _is_pointwise(problem: Problem) -> bool:
    """Whether each pixel of the output reads one pixel of the input; a single pixel is a matter of its own."""
    return problem.kernel == (1, 1) and problem.padding == (0, 0) and problem.h_out * problem.w_out > 1


def _interleaved_images(problem: Problem, isa: InstructionSet) -> int:
    if problem.h_out * problem.w_out > 1:
        return isa.lanes
    # One pixel an image: the images themselves must fill the tile.
    vectors = math.ceil(problem.n / isa.lanes)
    return isa.lanes * math.ceil(vectors / math.ceil(vectors / isa.max_tile))


def _values(weight: Tensor, dtype: Dtype) -> NDArray[np.float32]:
    """The weight as native code takes it: float32, or 32 bits that hold the half-precision number twice."""
    if dtype == "float32":
        return to_numpy(weight)
    halves = weight.detach().half().contiguous().numpy()
    return np.repeat(halves.ravel(), 2).view(np.float32)


def _tap_offsets(problem: Problem, shape: FlatShape) -> NDArray[np.uint32]:
    """Offset of each tap [C, R, S] of the first group from an output position to the input it multiplies, in floats."""
    taps = tap_offsets(
        problem,
        phase_step=shape.phase_floats,
        row_step=shape.phases.pitch * shape.images,
        column_step=shape.images,
    )
    channels = np.arange(problem.weight_shape[1])
    if shape.window_channels > 0:
        channels %= shape.window_channels
    offsets = channels[:, None, None] * shape.channel_floats + taps[None]
    return offsets.astype(np.uint32).ravel()
