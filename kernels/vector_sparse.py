"""Vector-sparse convolution and linear: channels_last, lanes over output channels, no gathers.

A packed entry is the offset of an input word and one vector of weights for a block of output channels; entries whose
weights are all zero are left out. So groups of weights that span the output channels of a block (``block:16x1`` with 16
lanes, larger blocks, whole columns, channels, filters) cost nothing once they are zero, at the full rate of dense
arithmetic in what is left. Channels without any weight take no part in the blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor  # before _native: the extension must share torch's OpenMP runtime

from . import _native
from .check import check_weights
from .dense import SHORT_DTYPES, UNITS
from .errors import InputError
from .groups import free_density
from .native_layer import run_native, to_numpy
from .pattern import BlockPart, SasPart, parse_pattern
from .problem import DTYPE_BYTES, Op, Problem
from .quantisation import Quantisation, quantise_layer, why_sums_overflow
from .spec import Cost, KernelSpec, Machine
from .vector_shape import (
    CHUNK_BYTES,
    WORD_BYTES,
    VectorSet,
    VectorShape,
    group_offset,
    tap_offsets,
    vector_shape,
    why_layout_unsupported,
)

VECTOR_SETS = (
    VectorSet(isa="avx512vnni", dtype="int8", lanes=16, max_run=7, max_runs=4, shares_loads=True),
    VectorSet(isa="avx512bf16", dtype="bfloat16", lanes=16, max_run=7, max_runs=4, shares_loads=True),
    VectorSet(isa="avx512", dtype="float32", lanes=16, max_run=7, max_runs=4, shares_loads=True),
    VectorSet(isa="avx2", dtype="float32", lanes=8, max_run=7, max_runs=2, shares_loads=False),
    VectorSet(isa="baseline", dtype="float32", lanes=4, max_run=6, max_runs=2, shares_loads=False),
)

PATTERNS = ("block", "shape", "channel", "filter", "filter2d", "depth")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedVector:
    """Weights ready to run, for exactly one problem."""

    problem: Problem
    native: _native.VectorSparse


def pack_vector(
    problem: Problem,
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    quantisation: Quantisation | None = None,
    *,
    vectors: VectorSet,
) -> PackedVector:
    """Pack a dense weight [K, C, R, S] that contains zeros.

    Parameters
    ----------
    quantisation : Quantisation or None
        Of input and output, for int8 alone.

    Raises
    ------
    InputError
        If the weight or the bias does not have the shape and dtype of the problem, or an int8 layer has no
        quantisation.
    """
    check_weights(problem, weight, bias)
    matrix, start, padding_word, constants = to_numpy(weight), None if bias is None else to_numpy(bias), 0, None
    zero_point, low = 0, 0
    if problem.dtype == "int8":
        if quantisation is None:
            raise InputError("an int8 layer needs the quantisation of its input and output")
        layer = quantise_layer(weight, bias, relu, quantisation)
        matrix, start = layer.weight.astype(np.float32), None
        constants = np.stack([layer.folded_bias(), layer.multiplier, layer.shift])
        zero_point, low = layer.y_zero_point, layer.low
        padding_word = layer.x_zero_point * 0x01010101
    shape = vector_shape(problem, vectors)
    native = _native.VectorSparse(
        isa=vectors.isa,
        dtype=vectors.dtype,
        shape=_native_shape(problem, shape, vectors, padding_word),
        phases_h=list(shape.phases_h),
        phases_w=list(shape.phases_w),
        weight=matrix.reshape(problem.c_out, problem.weight_shape[1], -1),
        tap_offset=tap_offsets(problem, shape),
        group_offset=group_offset(problem, shape),
        bias=start,
        relu=relu,
        requantisation=constants,
        zero_point=zero_point,
        low=low,
    )
    return PackedVector(problem=problem, native=native)


def run_vector(packed: PackedVector, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Run packed weights on all of torch's threads.

    Parameters
    ----------
    x : Tensor
        [N, C, H, W] in channels_last order or [N, C]; copied first where it lies otherwise.
    residual : Tensor or None
        Like the output; added before the ReLU.

    Raises
    ------
    InputError
        If `x` has another shape or dtype than the problem, or `residual` is not like the output.
    """
    return run_native(packed.problem, packed.native, x, residual, layout="nhwc")


def vector_cost(problem: Problem, *, vectors: VectorSet) -> Cost:
    """Work of one run: lanes without weights, runs that overlap and entries with few weights included."""
    shape = vector_shape(problem, vectors)
    blocks, entries = _expected_entries(problem, vectors)
    pixels = float(shape.runs * shape.run_pixels)
    tiles = math.ceil(shape.runs / vectors.max_runs)
    lane_bytes = vectors.lanes * WORD_BYTES
    copied, dealt = _copies(problem, shape, vectors) if shape.copies_input else (0.0, 0.0)
    if "filter" in parse_pattern(problem.pattern).kinds:
        # Lanes go to the channels that have weights, and constants between them, piece by piece.
        copied += 2.0 * problem.output_bytes
    packed = entries * (lane_bytes + WORD_BYTES)
    return Cost(
        unit=UNITS[problem.dtype],
        flop=2.0 * entries * vectors.word_channels * vectors.lanes * pixels,
        bytes_streamed=tiles * packed + entries * pixels * WORD_BYTES + pixels * blocks * lane_bytes,
        bytes_moved=problem.input_bytes + problem.output_bytes + packed,
        tasks=max(shape.bands, min(tiles * blocks, 8 * problem.threads)),
        bytes_copied=copied,
        values_dealt=dealt,
        starts=float(tiles * blocks),
    )


def _copies(problem: Problem, shape: VectorShape, vectors: VectorSet) -> tuple[float, float]:
    """Bytes read and written by copies of the input, and words that are copied one by one.

    Squares of lanes x lanes words are transposed, however few of a square are wanted; channels that leave a part of a
    word are copied pixel by pixel.
    """
    rows = max(1, shape.band_lines // shape.h_out) * (min(shape.band_lines, shape.h_out) + shape.rows - shape.h_out)
    # Threads that share a band copy it each.
    copies = shape.bands + problem.threads - math.gcd(shape.bands, problem.threads)
    lines = float(copies * rows * len(shape.phases_h) * len(shape.phases_w))
    whole, part = divmod(problem.weight_shape[1] * DTYPE_BYTES[problem.dtype], WORD_BYTES)
    if part:
        squares, dealt = problem.groups * math.ceil(whole / vectors.lanes), problem.groups * lines * shape.pitch
    else:
        squares, dealt = math.ceil(whole * problem.groups / vectors.lanes), 0.0
    words = math.ceil(shape.pitch / vectors.lanes) * squares * vectors.lanes**2
    return 2.0 * words * lines * WORD_BYTES, dealt


def why_vector_unsupported(problem: Problem, machine: Machine, *, op: Op, vectors: VectorSet) -> str | None:
    """The reason why a kernel cannot run a problem, or None; any pattern of zeros gives the right result."""
    if machine.device != "cpu":
        return f"runs on the CPU only, the machine is {machine.device!r}"
    if problem.op != op:
        return f"runs {op}, not {problem.op}"
    if problem.dtype != vectors.dtype:
        return f"computes in {vectors.dtype}, not {problem.dtype}"
    if vectors.isa not in machine.isa:
        return f"needs {vectors.isa}, this machine allows {', '.join(machine.isa) or 'no CPU instruction set'}"
    for part in parse_pattern(problem.pattern).parts:
        if isinstance(part, SasPart):
            return f"pattern {part.name!r} sparsifies activations, which this kernel does not skip"
    if problem.dtype == "int8" and (reason := why_sums_overflow(problem)):
        return reason
    return why_layout_unsupported(problem, vectors)


def _native_shape(problem: Problem, shape: VectorShape, vectors: VectorSet, padding_word: int) -> _native.VectorShape:
    return _native.VectorShape(
        n=shape.n,
        h_in=shape.h_in,
        w_in=shape.w_in,
        c_out=problem.c_out,
        h_out=shape.h_out,
        w_out=shape.w_out,
        stride_h=problem.stride[0],
        stride_w=problem.stride[1],
        pad_h=problem.padding[0],
        pad_w=problem.padding[1],
        groups=problem.groups,
        group_bytes=problem.weight_shape[1] * DTYPE_BYTES[problem.dtype],
        group_words=shape.group_words,
        rows=shape.rows,
        pitch=shape.pitch,
        phase_bytes=shape.phase_bytes,
        word_bytes=shape.word_bytes,
        step_bytes=shape.step_bytes,
        run_pixels=shape.run_pixels,
        band_lines=shape.band_lines,
        band_columns=shape.band_columns,
        chunk_entries=CHUNK_BYTES // (vectors.lanes * WORD_BYTES),
        copies_input=shape.copies_input,
        padding_word=padding_word,
    )


def _expected_entries(problem: Problem, vectors: VectorSet) -> tuple[int, float]:
    """Blocks, and entries of all of them, where the zeros of the pattern fall at random.

    An entry stays while any of its lanes x channels of a word has a weight. Groups of weights that contain an entry
    vanish with it; of smaller ones, all that meet the entry must vanish.
    """
    pattern = parse_pattern(problem.pattern)
    free = [part for part in pattern.parts if isinstance(part, BlockPart)]
    density = free_density(pattern, problem.sparsity)
    # A block lies within a group, whose channels alone it reads: depth-wise layers fill one lane of each.
    k, c = problem.c_out // problem.groups, problem.weight_shape[1]
    kept = density if "filter" in pattern.kinds else 1.0
    lanes = min(vectors.lanes, k)
    in_group = math.ceil(max(1, round(k * kept)) / lanes) if k > 1 else kept
    blocks = math.ceil(problem.groups * in_group)
    share = 1.0
    for part in free:
        if part.name == "filter":
            continue
        height, width = (extent or axis for extent, axis in zip(part.block[:2], (k, c), strict=True))
        groups = max(1.0, lanes / height) * max(1.0, vectors.word_channels / width)
        share *= 1.0 - (1.0 - density) ** groups
    words = math.ceil(c / vectors.word_channels) * math.prod(problem.kernel)
    return blocks, max(blocks * words * share, 1.0)


def _spec(op: Op, vectors: VectorSet) -> KernelSpec:
    return KernelSpec(
        name=f"{op}_vector_{SHORT_DTYPES[vectors.dtype]}_nhwc__{vectors.isa}",
        op=op,
        # In int8 no library kernel is there to run a dense layer.
        patterns=(*PATTERNS, "dense") if vectors.dtype == "int8" else PATTERNS,
        dtype=vectors.dtype,
        isa=vectors.isa,
        layout="nhwc",
        pack=partial(pack_vector, vectors=vectors),
        run=run_vector,
        cost=partial(vector_cost, vectors=vectors),
        why_unsupported=partial(why_vector_unsupported, op=op, vectors=vectors),
    )


KERNELS: tuple[KernelSpec, ...] = tuple(_spec(op, vectors) for vectors in VECTOR_SETS for op in ("conv2d", "linear"))
