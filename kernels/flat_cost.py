"""What a run of the flat sparse convolution costs, and how threads share it."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

from .dense import UNITS
from .flat_sparse import ENTRY_BYTES, FlatShape, flat_shape, stored_images
from .flat_tiling import filled_zeros
from .layout import BLOCK_IMAGES
from .native_layer import InstructionSet
from .problem import DTYPE_BYTES, Problem
from .spec import Cost, Layout

LEAST_CHANNELS = 16
UNEVEN_TASKS = 8
LIKE_TASKS = 32
"""Constants of `shares_of` in native/flat/run.inc.h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How the threads share a run.

    Attributes
    ----------
    tasks : int
        Pieces of work.
    copies : float
        Times that all threads together copy the whole padded input of a block of images, or of a tile where tiles or
        windows are copied; a thread copies only the rows that its pieces read.
    """

    tasks: int
    copies: float


def flat_cost(problem: Problem, isa: InstructionSet, *, interleaved: bool, layout: Layout = "nchw") -> Cost:
    """Work of one run: padding to tiles, tails and garbage columns included."""
    shape = flat_shape(problem, isa, interleaved=interleaved, layout=layout)
    blocks = math.ceil(problem.n / shape.images)
    nonzeros = problem.weight_count * (1.0 - problem.sparsity)
    filled = 0.0 if shape.tiling.quad is None else filled_zeros(problem, shape.tiling.c_blocks)
    scalar_bytes = DTYPE_BYTES[isa.dtype]
    outside = (problem.input_bytes + problem.output_bytes) * stored_images(problem, layout) / problem.n
    sharing = share_flat(problem, shape, isa)
    copied = problem.c_in * shape.channel_floats * sharing.copies if shape.copies_input else 0.0
    # Rows of planes are copied in vectors; whatever changes the order of values, value by value.
    in_order = layout != "nhwc" and (
        shape.window_channels > 0 or (problem.stride == (1, 1) and (shape.images == 1 or layout in BLOCK_IMAGES))
    )
    written = float(problem.c_out * shape.area.written(shape.tiling.tile, isa.lanes) * blocks * isa.lanes)
    return Cost(
        unit=UNITS[isa.dtype],
        flop=2.0 * (nonzeros + filled) * shape.area.vectors * blocks * isa.lanes,
        bytes_streamed=shape.tiling.streamed_vectors * blocks * isa.lanes * scalar_bytes,
        bytes_moved=outside + (nonzeros + filled) * ENTRY_BYTES,
        tasks=sharing.tasks,
        bytes_copied=2.0 * scalar_bytes * (written + (copied if in_order else 0.0)),
        values_dealt=0.0 if in_order else copied * _in_squares(problem, shape, isa, layout),
        starts=float(_loops(problem, shape) * shape.tiling.c_blocks * blocks),
    )


def _loops(problem: Problem, shape: FlatShape) -> int:
    """Loops over non-zeros in one block of input channels."""
    tile, quad = shape.tiling.tile, shape.tiling.quad
    if quad is None:
        return problem.c_out * shape.area.tiles(tile)
    return math.ceil(problem.c_out / 4) * shape.area.quads(tile, quad)


def _in_squares(problem: Problem, shape: FlatShape, isa: InstructionSet, layout: Layout) -> float:
    """Values that are moved for each one that is copied.

    Rows of channels_last images are transposed in squares of lanes x lanes, and filling the padding beside a row takes
    about as long as another square.
    """
    if layout != "nhwc" or shape.images > 1:
        return 1.0
    pitch, channels = shape.phases.pitch, problem.c_in
    across = math.ceil(pitch / isa.lanes) + (problem.padding[1] > 0)
    return across * isa.lanes / pitch * math.ceil(channels / isa.lanes) * isa.lanes / channels


def share_flat(problem: Problem, shape: FlatShape, isa: InstructionSet) -> Sharing:
    """Cut a run as native/flat/run.inc.h does: into blocks of images, or each block into tiles x channels."""
    threads, blocks = problem.threads, math.ceil(problem.n / shape.images)
    tiles = shape.area.tiles(shape.tiling.tile)
    if blocks % threads == 0 or blocks >= 4 * threads:
        windows = tiles * math.ceil(problem.c_out / shape.tiling.k_block)
        each = windows if shape.window_channels > 0 else tiles if shape.copies_tiles else 1
        return Sharing(tasks=blocks, copies=float(blocks * each))
    parts, tiles_first = _parts(problem, shape, tiles)
    edges = _edges(shape, parts, tiles_first=tiles_first, threads=threads)
    copies = 0.0
    for thread in range(threads):
        begin, end = edges[thread], edges[thread + 1]
        if begin == end:
            continue
        if shape.window_channels > 0:
            order = (task // parts if tiles_first else task % tiles for task in range(begin, end))
            channels = (problem.c_out * len(list(same)) / parts for _, same in groupby(order))
            copies += sum(math.ceil(some / shape.tiling.k_block) for some in channels)
            continue
        if tiles_first:
            first, last, taken = begin // parts, (end - 1) // parts, (end - 1) // parts - begin // parts + 1
        elif begin // tiles == (end - 1) // tiles:
            first, last, taken = begin % tiles, (end - 1) % tiles, end - begin
        else:
            first, last, taken = 0, tiles - 1, end - begin if tiles > 1 else 1
        rows = _rows_under(shape, (first, last), h_out=problem.h_out, lanes=isa.lanes)
        copies += taken if shape.copies_tiles else rows / shape.phases.rows
    return Sharing(tasks=tiles * parts, copies=blocks * copies)


def _parts(problem: Problem, shape: FlatShape, tiles: int) -> tuple[int, bool]:
    """Parts of the output channels, and whether a thread takes all of a tile before the next: `shares_of`."""
    threads, chunks = problem.threads, math.ceil(problem.c_out / shape.tiling.k_chunk)
    read = problem.c_in * problem.h_in * problem.w_in * shape.images
    weight_bytes = problem.weight_count * (1.0 - problem.sparsity) * ENTRY_BYTES
    tiles_first = tiles > 1 and weight_bytes < read * DTYPE_BYTES[problem.dtype]
    parts = 1 if tiles_first else max(1, min(threads, problem.c_out // LEAST_CHANNELS))
    while parts < chunks and tiles * parts < UNEVEN_TASKS * threads:
        work = _work(shape, parts, tiles_first=tiles_first)
        edges = _edges(shape, parts, tiles_first=tiles_first, threads=threads)
        if all(sum(work[begin:end]) * threads * 25 <= sum(work) * 26 for begin, end in pairwise(edges)):
            break
        parts += 1
    return min(parts, chunks), tiles_first


def _edges(shape: FlatShape, parts: int, *, tiles_first: bool, threads: int) -> list[int]:
    """Where the tasks of each thread begin, and where the last one's end: `tasks_of`."""
    tasks = shape.area.tiles(shape.tiling.tile) * parts
    if tasks >= LIKE_TASKS * threads:
        return [tasks * thread // threads for thread in range(threads + 1)]
    work = _work(shape, parts, tiles_first=tiles_first)
    owners = [(2 * end - own) * threads // (2 * sum(work)) for own, end in zip(work, accumulate(work), strict=True)]
    return [bisect_left(owners, thread) for thread in range(threads + 1)]


def _work(shape: FlatShape, parts: int, *, tiles_first: bool) -> list[int]:
    """Vectors of output of each task, in order."""
    area, tile = shape.area, shape.tiling.tile
    across, down = math.ceil(area.columns / tile.columns), math.ceil(area.rows / tile.rows)
    rows = [area.rows * (part + 1) // down - area.rows * part // down for part in range(down)]
    columns = [area.columns * (part + 1) // across - area.columns * part // across for part in range(across)]
    tiles = [height * width for height in rows for width in columns]
    return [work for work in tiles for _ in range(parts)] if tiles_first else tiles * parts


def _rows_under(shape: FlatShape, span: tuple[int, int], *, h_out: int, lanes: int) -> int:
    """Rows of the padded input that are copied for a span of tiles, the last included, as `rows_under` finds them."""
    area, tile, phases = shape.area, shape.tiling.tile, shape.phases
    across, down = math.ceil(area.columns / tile.columns), math.ceil(area.rows / tile.rows)
    (first, last), halo = span, phases.rows - h_out
    if area.rows > 1:
        return area.rows * (last // across + 1) // down + halo - area.rows * (first // across) // down
    row_floats = phases.pitch * shape.images
    begin, end = (area.columns * edge // across * lanes for edge in (first, last + 1))
    # A tap may reach from the last position into the row after.
    return min(phases.rows, (end - 1) // row_floats + halo + 2) - begin // row_floats
