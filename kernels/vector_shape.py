"""How the vector-sparse kernels lay a problem out: words of input, runs of pixels, bands of an image.

A *word* is 32 bits of input: one float32 channel, two bfloat16 or four uint8 ones. Lanes run over output channels. For
each packed entry, ``sums[pixel][lane] += weights[entry][lane] * x[pixel][word of the entry]`` over all pixels of a
tile. A tile is a few *runs*: consecutive output pixels of a line, so that one address and a step find their words.
These are read from the caller's channels_last memory where nothing is padded, else from a copy in planes
``[word][phase][image][row][column]``; with stride s, phase a holds the padded rows (columns) a, a + s, a + 2 s, ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .phases import halo_of, phases_read, reach_of
from .phases import tap_offsets as phase_offsets
from .problem import DTYPE_BYTES, Dtype, Problem

WORD_BYTES = 4
LINE_BYTES = 64
COPY_BYTES = 384 * 1024
"""Copied input of a band: it shares a level-2 cache of 1 MiB with weights and output."""
PLACE_BYTES = 128 * 1024
"""Input of a band that is read in place: while one is computed, the next comes into the level-2 cache."""
CHUNK_BYTES = 256 * 1024
"""Weights that the tiles of a band pass over before the next weights come."""
L1_BYTES = 28 * 1024
"""Input of a tile that may lie in the level-1 cache (32 KiB) beside weights."""
COPY_REUSE = 8.0
"""Multiply-adds with a word from where on a copy pays for itself by shared loads. Copying costs half a cycle a word or
less; a core that loads and multiplies twice a cycle then saves a sixth of the half cycle that a multiply-add takes
(measured on Zen 5: copies take 1.0-1.4 times as long at a reuse up to 4, 0.85-0.94 at 8, 0.82-0.92 from 16 on). With
one multiply-add a cycle nothing is saved, and the copy costs a sixteenth at this reuse."""
OFFSET_LIMIT = 2**32


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSet:
    """An instruction set with one arithmetic: lanes of a block, pixels of a run, runs of a tile.

    `shares_loads`: pixels that lie side by side in a copy share loads, four at a time (``kQuadRuns``).

    The numbers are those of ``native/vector/<isa>.cpp``; packing refuses others.
    """

    isa: str
    dtype: Dtype
    lanes: int
    max_run: int
    max_runs: int
    shares_loads: bool

    @property
    def word_channels(self) -> int:
        return WORD_BYTES // DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorShape:
    """How a problem is laid out for the inner kernel.

    Attributes
    ----------
    n, h_in, w_in, h_out, w_out : int
        Sizes as the kernel sees them: a 1x1 kernel without stride or padding sees all pixels as one line.
    group_words : int
        Words of the channels of a group.
    phases_h, phases_w : tuple of int
        Phases that some tap reads.
    rows, pitch : int
        Rows of a phase of a whole image, and positions from one row of a copy to the next.
    phase_bytes, word_bytes : int
        From one phase, one word to the next in the copy.
    step_bytes : int
        From a pixel of a run to the next.
    run_pixels : int
        Pixels of a run.
    band_lines, band_columns : int
        Output pixels that are computed from one copy: rows of an image, or whole images where that many fit.
    """

    n: int
    h_in: int
    w_in: int
    h_out: int
    w_out: int
    group_words: int
    phases_h: tuple[int, ...]
    phases_w: tuple[int, ...]
    rows: int
    pitch: int
    phase_bytes: int
    word_bytes: int
    step_bytes: int
    run_pixels: int
    band_lines: int
    band_columns: int
    copies_input: bool

    @property
    def lines(self) -> int:
        return self.n * self.h_out

    @property
    def runs(self) -> int:
        """Runs of all output pixels; the last of a line overlaps the one before it."""
        return self.lines * math.ceil(self.w_out / self.run_pixels)

    @property
    def bands(self) -> int:
        in_line = math.ceil(self.w_out / self.band_columns)
        if self.band_lines < self.h_out:
            return in_line * self.n * math.ceil(self.h_out / self.band_lines)
        return in_line * math.ceil(self.lines / self.band_lines)


def vector_shape(problem: Problem, vectors: VectorSet) -> VectorShape:
    """Lay a problem out for an instruction set and arithmetic."""
    pointwise = problem.kernel == (1, 1) and problem.padding == (0, 0)
    flat = pointwise and problem.stride == (1, 1)
    n, h_in, w_in = (1, 1, problem.n * problem.h_in * problem.w_in) if flat else (problem.n, problem.h_in, problem.w_in)
    h_out, w_out = (1, w_in) if flat else (problem.h_out, problem.w_out)
    stride_w, channels = problem.stride[1], problem.weight_shape[1]
    group_words = math.ceil(channels / vectors.word_channels)
    pixel_bytes = problem.c_in * DTYPE_BYTES[problem.dtype]
    in_place = _reads_in_place(problem, vectors, pixel_bytes)

    (phases_h, phases_w), (halo_h, halo_w) = phases_read(problem), halo_of(problem)
    run_pixels = _run_pixels(w_out, vectors)
    words = problem.groups * group_words * len(phases_h) * len(phases_w)
    budget = (PLACE_BYTES if in_place else COPY_BYTES) // (words * WORD_BYTES)
    tile = run_pixels * vectors.max_runs
    band_lines, band_columns = _band(
        n, h_out, w_out, halo=(halo_h, halo_w), positions=budget, tile=tile, threads=problem.threads
    )
    pitch = band_columns + halo_w
    images = max(1, band_lines // h_out)
    # Copies are written in whole vectors: the last may reach beyond.
    phase_bytes = (images * (min(band_lines, h_out) + halo_h) * pitch + vectors.lanes - 1) * WORD_BYTES
    # An odd number of lines apart, planes spread over all sets of the caches.
    plane_lines = math.ceil(len(phases_h) * len(phases_w) * phase_bytes / LINE_BYTES) | 1
    return VectorShape(
        n=n,
        h_in=h_in,
        w_in=w_in,
        h_out=h_out,
        w_out=w_out,
        group_words=group_words,
        phases_h=phases_h,
        phases_w=phases_w,
        rows=h_out + halo_h,
        pitch=pitch,
        phase_bytes=phase_bytes,
        word_bytes=plane_lines * LINE_BYTES,
        step_bytes=stride_w * pixel_bytes if in_place else WORD_BYTES,
        run_pixels=run_pixels,
        band_lines=band_lines,
        band_columns=band_columns,
        copies_input=not in_place,
    )


def tap_offsets(problem: Problem, shape: VectorShape) -> NDArray[np.uint32]:
    """[words, R * S]: bytes from a run's first word to the word that each tap of the first group multiplies."""
    if shape.copies_input:
        steps = {"phase_step": shape.phase_bytes, "row_step": shape.pitch * WORD_BYTES, "column_step": WORD_BYTES}
        taps, word_step = phase_offsets(problem, **steps), shape.word_bytes
    else:
        pixel_bytes = problem.c_in * DTYPE_BYTES[problem.dtype]
        reach_h, reach_w = map(np.array, reach_of(problem))
        taps, word_step = (reach_h[:, None] * shape.w_in + reach_w[None, :]) * pixel_bytes, WORD_BYTES
    offsets = np.arange(shape.group_words)[:, None] * word_step + taps.reshape(1, -1)
    return offsets.astype(np.uint32)


def group_offset(problem: Problem, shape: VectorShape) -> int:
    """Bytes from the words of a group to those of the next."""
    if shape.copies_input:
        return shape.group_words * shape.word_bytes
    return problem.weight_shape[1] * DTYPE_BYTES[problem.dtype]


def why_layout_unsupported(problem: Problem, vectors: VectorSet) -> str | None:
    """The reason why offsets cannot address the input, or None."""
    shape = vector_shape(problem, vectors)
    reach = problem.input_bytes / problem.n
    if shape.copies_input:
        reach = problem.groups * shape.group_words * shape.word_bytes
    if reach >= OFFSET_LIMIT:
        return f"the input of a band exceeds {OFFSET_LIMIT} bytes"
    return None


def _reads_in_place(problem: Problem, vectors: VectorSet, pixel_bytes: int) -> bool:
    """Whether words are read from the caller's memory.

    There each pixel of a tile has cache lines of its own, and pixels a power of two apart share few sets of a cache: it
    pays while the whole tile stays in level 1, and words meet too few weights for shared loads to repay a copy.
    """
    if problem.padding != (0, 0) or problem.weight_shape[1] % vectors.word_channels != 0:
        return False
    tile = vectors.max_run * vectors.max_runs * problem.stride[1] * pixel_bytes
    reuse = (1.0 - problem.sparsity) * problem.c_out / problem.groups / vectors.lanes
    repays = vectors.shares_loads and reuse >= COPY_REUSE
    return problem.kernel == (1, 1) and tile <= L1_BYTES and not repays


def _run_pixels(w_out: int, vectors: VectorSet) -> int:
    """The run that computes the fewest pixels of a line twice, longer ones preferred."""
    runs = range(min(w_out, vectors.max_run), 0, -1)
    return min(runs, key=lambda run: math.ceil(w_out / run) * (run + 0.3))


def _band(
    n: int, h_out: int, w_out: int, *, halo: tuple[int, int], positions: int, tile: int, threads: int
) -> tuple[int, int]:
    """Lines and columns of a band: whole images, else rows of one, else a part of a row, as `positions` of input allow.

    Parts of a row are whole tiles of `tile` pixels.
    """

    def shares(wanted: int, units: int, unit_pixels: int, teams: int) -> int:
        """How many bands: as many for each thread, where two tiles are left to each band, so that none is shared."""
        even = math.ceil(wanted / teams) * teams
        return even if even <= units and units * unit_pixels >= 2 * tile * even else wanted

    halo_h, halo_w = halo
    images = min(n, positions // ((h_out + halo_h) * (w_out + halo_w)))
    if images and n > 1:
        return h_out * math.ceil(n / shares(math.ceil(n / images), n, h_out * w_out, threads)), w_out
    teams = threads // math.gcd(n, threads)
    rows = h_out if images else positions // (w_out + halo_w) - halo_h
    if rows >= 1 and h_out > 1:
        return math.ceil(h_out / shares(math.ceil(h_out / rows), h_out, w_out, teams)), w_out
    tiles = math.ceil(w_out / tile)
    tiles_of_band = max((positions // (1 + halo_h) - halo_w) // tile, 1)
    return 1, tile * math.ceil(tiles / shares(math.ceil(tiles / tiles_of_band), tiles, tile, teams))
