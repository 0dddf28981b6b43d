"""How the flat sparse convolution is cut: tiles of output, blocks of channels, chosen by counting what moves.

A tile is the part of an output channel whose sums stay in registers; for each non-zero it loads as many vectors of
input as it has sums. Blocks of input channels keep that input in the level-1 cache, and cost a load and a store of all
sums each. Which cut is best depends on shape and density: long rows of non-zeros want small blocks, short ones large.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

from .native_layer import FLOAT_BYTES, InstructionSet
from .problem import DTYPE_BYTES, Problem

MAX_TILE_ROWS = 4
"""Rows of a tile for which native/flat/inner.inc.h has a kernel."""
ENTRY_VECTORS = 2.0
SUMS_VECTORS = 2.5
MISS_VECTORS = 1.0
FILL_VECTORS = 0.6
WRITE_VECTORS = 3.0
"""Time, in loads of a vector from level 1: of a non-zero beside its loads; of loading and storing a vector of sums; of
what a load from level 2 takes longer; of the first touch of a vector in a block; of transposing and writing one."""
LEAST_SUMS = 12
"""Vectors of sums that cost no more than fewer do: the end of a row of non-zeros is mispredicted, which only the many
additions of a large tile hide (measured on a tile of one vector: 30 cycles a row)."""
LEVEL_1_FRAC = 0.7
"""Share of level 1 that input may fill before loads miss."""
RIM_FRAC = 0.3
RIM_FRAC_PER_TAP = 0.2
"""Share of the input around a tile that the taps of an output channel touch: at least, and more with each non-zero
that the channel has for an input channel.

These constants have the least regret over 1,400 cuts of 73 layers (AlexNet's pruned ones, 1x1 and 3x3 at 85 % zeros) on
Zen 4 in SSE2, AVX2 and AVX-512, both layouts: the cut chosen takes on average 1.02 times as long as the best, at most
1.09 times. `ENTRY_VECTORS` was 1 there; a Zen 5, which loads two vectors a cycle, wants 2 to 4 (1,000 cuts of 24 layers
in AVX-512: with 2 the cut chosen takes on average 1.03 times as long as the best, at most 1.14 times)."""
QUAD_ENTRY_VECTORS = 1.0
QUAD_END_VECTORS = 7.0
QUAD_SHORT = 0.15
"""The same of a non-zero in a quad, of the end of a row and of the zeros that fill a shorter row up, in standard
deviations of its length (measured on Zen 5 with pointwise layers at 90 % zeros)."""
MIN_CHUNK = 16
MAX_CHUNK = 64
"""Output channels among which quads are formed: enough that neighbours in length differ little."""
QUAD_ROWS = 3
QUAD_TILES = (1, 2, 4, 8)
"""Rows of a quad at most, and how many quads of a row a tile has."""
QUAD_TILE_FRAC = 2.0
"""Vectors of such a tile at most, as a share of those of a tile of one channel."""
PARTED_WRITE_VECTORS = 6.0
"""Of transposing and writing a vector where the channels of a pixel are written in parts."""
AHEAD_FRAC = 0.3
FAR_FILL_VECTORS = 0.75
"""Share of level 2 that the input of a tile may fill to be asked for ahead, and a first touch where it does not."""
WINDOW_VECTORS = 4.0
NHWC_WINDOW_VECTORS = 6.0
"""Of copying a vector under a tile before it is touched, and of transposing it as well (measured on Zen 5)."""
TILE_FRACS = (1.0, 0.75, 0.5)
"""Shares of the registers that are tried: small tiles keep more channels in level 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """The output of a channel in vectors, the input beyond it that a tile also touches, and whether the channels of a
    pixel lie side by side in the output."""

    rows: int
    columns: int
    halo_rows: float
    halo_columns: float
    phases: int
    channels_adjoin: bool = False

    @property
    def vectors(self) -> int:
        return self.rows * self.columns

    def touched(self, tile: Tile, rim_frac: float) -> float:
        """Vectors of an input channel under a tile and, of the rim around it, the given share."""
        return self.phases * (tile.rows + rim_frac * self.halo_rows) * (tile.columns + rim_frac * self.halo_columns)

    def written(self, tile: Tile, lanes: int) -> int:
        """Vectors transposed to write the output of a channel, `lanes` at a time."""
        if tile.columns == self.columns:
            return math.ceil(self.rows / tile.rows) * lanes * math.ceil(tile.rows * tile.columns / lanes)
        return self.rows * math.ceil(self.columns / tile.columns) * lanes * math.ceil(tile.columns / lanes)

    def tiles(self, tile: Tile) -> int:
        return math.ceil(self.rows / tile.rows) * math.ceil(self.columns / tile.columns)

    def quads(self, tile: Tile, quad: Tile) -> int:
        """Parts of all tiles, of `quad` at most."""
        return self.tiles(tile) * math.ceil(tile.rows / quad.rows) * math.ceil(tile.columns / quad.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Rows and columns, in vectors."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """A cut, and what the inner loops then move.

    Attributes
    ----------
    quad : Tile or None
        Part of a tile whose sums stay in registers for four output channels at a time; None where these go alone.
    k_block : int
        Output channels computed before they are written: whole chunks.
    k_chunk : int
        Output channels among which those of like length are put in quads; 1 where these go alone.
    c_block, c_blocks : int
        Input channels (per group) summed in one go, and how often.
    streamed_vectors : float
        Time of the inner loops over one block of images, as a number of vectors loaded from level 1; without copies.
    """

    tile: Tile
    quad: Tile | None = None
    k_block: int
    k_chunk: int = 1
    c_block: int
    c_blocks: int
    streamed_vectors: float


@lru_cache(maxsize=1 << 16)
def choose_tiling(
    problem: Problem, area: Area, isa: InstructionSet, cache_bytes: tuple[int, int], *, window_unit: int = 0
) -> Tiling:
    """The cut with the least movement; remembered, as a planner asks for the same layers again and again.

    Parameters
    ----------
    cache_bytes : tuple of int
        Sizes of the level-1 and the level-2 cache of a core.
    window_unit : int
        Where the input of some blocks of channels is copied under each tile: how many of them together; else 0.
    """
    channels, scalar_bytes = problem.weight_shape[1], DTYPE_BYTES[isa.dtype]
    vector_bytes, sum_bytes = isa.lanes * scalar_bytes, isa.lanes * FLOAT_BYTES
    sums_vectors = SUMS_VECTORS * FLOAT_BYTES / scalar_bytes
    nonzeros = problem.weight_count * (1.0 - problem.sparsity)
    rim_frac = min(1.0, RIM_FRAC + RIM_FRAC_PER_TAP * nonzeros / (problem.c_out * channels))
    c_out_group = problem.c_out // problem.groups
    blocks, vectors = _block_sizes(channels, max(1, window_unit)), area.vectors
    k_chunk = chunk_of(problem.c_out)
    least, best = math.inf, Tiling(tile=Tile(rows=1, columns=1), k_block=1, c_block=1, c_blocks=1, streamed_vectors=0.0)
    for tile, quad in cuts_of(area, isa):
        tiles, touched = area.tiles(tile), area.touched(tile, 1.0)
        # Sums take half of level 2; the rest is for the input.
        k_block = _even_part(problem.c_out, max(1, cache_bytes[1] // 2 // (tile.rows * tile.columns * sum_bytes)))
        # What the loop over blocks does not change is left out of it: most of a plan's time would go there.
        if quad is None:
            inner, inner_tiles, short, entry, end_vectors = tile, tiles, 0.0, ENTRY_VECTORS, 0.0
            least_vectors, fill = max(vectors, LEAST_SUMS * tiles), FILL_VECTORS
        else:
            k_block = max(k_chunk, k_block // k_chunk * k_chunk)
            inner, inner_tiles, entry = quad, area.quads(tile, quad), QUAD_ENTRY_VECTORS
            short, end_vectors = filled_zeros(problem, 1), QUAD_END_VECTORS
            near = problem.c_in * touched * vector_bytes <= AHEAD_FRAC * cache_bytes[1]
            least_vectors, fill = vectors, FILL_VECTORS if near else FAR_FILL_VECTORS
        passes = math.ceil(c_out_group / k_block)
        write = PARTED_WRITE_VECTORS if quad is not None and area.channels_adjoin and passes > 1 else WRITE_VECTORS
        fills = fill * touched * tiles * problem.c_in * passes
        copies = 0.0
        if window_unit > 0:
            copies = (NHWC_WINDOW_VECTORS if area.channels_adjoin else WINDOW_VECTORS) * fills / fill
            # What was copied lies in level 1, but not all that a tile of many quads reads.
            touches = 0.0 if quad is None else area.touched(quad, 1.0) * inner_tiles
            fills = FILL_VECTORS * touches * problem.c_in * passes
        # The four channels of a quad, and those after them, touch all of a rim that is as large as the tile.
        channel_bytes = area.touched(inner, rim_frac if quad is None else 1.0) * vector_bytes
        block_vectors = sums_vectors * problem.c_out * least_vectors
        end_vectors *= problem.c_out * inner_tiles
        once_vectors = (
            nonzeros * (vectors + entry * inner_tiles) + fills + write * problem.c_out * area.written(tile, isa.lanes)
        )
        for c_block, c_blocks in blocks:
            missing = max(0.0, 1.0 - LEVEL_1_FRAC * cache_bytes[0] / (c_block * channel_bytes))
            streamed = (
                once_vectors
                + nonzeros * vectors * MISS_VECTORS * missing
                + block_vectors * (c_blocks - 0.5)
                + end_vectors * c_blocks
                + short * math.sqrt(c_blocks) * vectors
            )
            if streamed + copies < least:
                least = streamed + copies
                best = Tiling(
                    tile=tile,
                    quad=quad,
                    k_block=k_block,
                    k_chunk=1 if quad is None else k_chunk,
                    c_block=c_block,
                    c_blocks=c_blocks,
                    streamed_vectors=streamed,
                )
    return best


def filled_zeros(problem: Problem, c_blocks: int) -> float:
    """Zeros that fill up the shorter rows of quads, about: lengths spread like those of random masks."""
    nonzeros = problem.weight_count * (1.0 - problem.sparsity)
    return QUAD_SHORT * math.sqrt(nonzeros * problem.sparsity * problem.c_out * c_blocks)


def chunk_of(c_out: int) -> int:
    """Output channels among which those of like length are put in quads: threads share whole chunks."""
    return min(MAX_CHUNK, max(MIN_CHUNK, math.ceil(c_out / 2 / MIN_CHUNK) * MIN_CHUNK))


def cuts_of(area: Area, isa: InstructionSet) -> Iterator[tuple[Tile, Tile | None]]:
    """Tiles, and the parts of them that four output channels share; None where these go one at a time."""
    for tile in _tiles(area, isa.max_tile):
        yield tile, None
    seen = set()
    for vectors in dict.fromkeys((isa.max_quad, isa.max_quad * 2 // 3)):
        for most_rows in range(1, min(QUAD_ROWS, area.rows, vectors) + 1):
            for many in QUAD_TILES:
                rows = _even_part(area.rows, most_rows)
                columns = _even_part(area.columns, vectors // most_rows)
                if area.rows == 1:
                    columns = min(area.columns, columns * many)
                elif many > 1:
                    columns = area.columns
                    rows = min(area.rows, rows * max(1, round(many * (vectors // most_rows) / columns)))
                tile = Tile(rows=_even_part(area.rows, rows), columns=_even_part(area.columns, columns))
                quad = Tile(
                    rows=_even_part(tile.rows, most_rows), columns=_even_part(tile.columns, vectors // most_rows)
                )
                if (tile, quad) not in seen and tile.rows * tile.columns <= QUAD_TILE_FRAC * isa.max_tile:
                    seen.add((tile, quad))
                    yield tile, quad


def _tiles(area: Area, max_tile: int) -> Iterator[Tile]:
    """Tiles of almost equal size that use the registers well; one at least."""
    for share in TILE_FRACS:
        vectors = max(1, int(share * max_tile))
        for most_rows in range(1, min(MAX_TILE_ROWS, area.rows, vectors) + 1):
            columns = _even_part(area.columns, vectors // most_rows)
            tile = Tile(rows=_even_part(area.rows, most_rows), columns=columns)
            if most_rows == 1 or tile.rows * tile.columns >= min(TILE_FRACS) * vectors:
                yield tile


@cache
def _block_sizes(channels: int, unit: int) -> tuple[tuple[int, int], ...]:
    """Sizes of equal blocks, each about a fifth smaller than the last, and how many of each there are.

    A unit above 1, a power of two, divides them or is divided by them.
    """
    if unit > 1:
        whole = (size * unit for size, _ in _block_sizes(math.ceil(channels / unit), 1))
        parts = (unit >> shift for shift in range(1, unit.bit_length()))
        return tuple((size, math.ceil(channels / size)) for size in (*whole, *parts))
    sizes = []
    c_block = channels
    while c_block > 1:
        sizes.append(c_block)
        c_block = _even_part(channels, max(1, min(c_block - 1, round(c_block * 0.8))))
    return tuple((size, math.ceil(channels / size)) for size in (*sizes, 1))


def _even_part(size: int, most: int) -> int:
    """The part of at most `most` that cuts `size` into the fewest, almost equal parts."""
    return math.ceil(size / math.ceil(size / most))
