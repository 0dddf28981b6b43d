"""SAS layers that multiply no zeros, in float32: the sign bits of each activation choose the row of weights.

For each pixel and input channel the slot (see `sas`) chooses one row of output channels, and one multiply-add a vector
adds |x| times that row. Rows are re-read per pixel, so the layer is bound by loads: a block of rows stays in level 1
while all pixels of a tile pass, the sums of a pixel in registers while a block passes. |x| w = x (-w) where x is not
positive, so the rows of odd slots are negated when packed and the input is read in place; only the slots are prepared,
once a tile for all blocks and kernel positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from . import _native
from .check import check_weights
from .native_layer import FLOAT_BYTES, INSTRUCTION_SETS, InstructionSet, run_native, to_numpy
from .pattern import SasPart, parse_pattern
from .problem import Op, Problem
from .sas import why_slots_undefined
from .spec import Cost, KernelSpec, Layout, Machine

L1_BYTES = 32 * 1024
"""Weights of a block: the whole of a usual level-1 cache, for rows that no pixel chose lately may leave it. Measured 2
to 5 % faster than 28 KiB, and 16 % than 48 KiB for 1:2."""
L2_BYTES = 512 * 1024
"""Half of the level-2 cache usual where AVX-512 is."""
SLOT_BYTES = 2
SLOT_LIMIT = 2**16
"""Slots are stored as 16-bit offsets in bytes."""
TILE_PIXELS = 224
"""Pixels that share one read of a block of weights from beyond level 1: past 100 the rest of the read is below 5 %."""
LEAST_TILE = 16
"""Pixels of the smallest tile, as in native/sas."""
FETCH_BELOW_FRAC = 0.9
"""Share of the rows read below which fetching whole blocks ahead wastes more than it hides."""
LEAST_SHARED = 4
"""Vectors of a row below which more threads do not help."""
PASS_VECTORS = 6.0
"""What the start of a pixel in a block costs beyond its sums, in vectors loaded: measured 20 to 25 cycles with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SasShape:
    """How a problem is cut for the inner kernel.

    Attributes
    ----------
    vectors : int
        Vectors of output channels whose sums stay in registers.
    c_block : int
        Pairs of kernel position and input channel in a block of weights.
    tile : int
        Pixels in a tile.
    fetches_rows : bool
        Whether rows are fetched one by one, not whole blocks ahead.
    streamed_vectors : float
        Vectors that the inner loop moves for each output pixel.
    """

    vectors: int
    c_block: int
    tile: int
    fetches_rows: bool
    streamed_vectors: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSas:
    """Weights ready to run, for exactly one problem."""

    problem: Problem
    native: _native.SasSelect


def sas_shape(problem: Problem, isa: InstructionSet) -> SasShape:
    """The cut of a problem that moves the fewest vectors."""
    slots = parse_pattern(problem.pattern).slots
    k_vectors = math.ceil(problem.c_out // problem.groups / isa.lanes)
    steps = problem.weight_count // problem.c_out // slots
    pixels = problem.n * problem.h_out * problem.w_out
    widest = min(isa.max_tile, k_vectors, max(1, (SLOT_LIMIT - 1) // ((slots - 1) * isa.lanes * FLOAT_BYTES)))
    fetches_rows = rows_read_frac(problem) < FETCH_BELOW_FRAC

    def cut(vectors: int) -> tuple[float, int]:
        row_bytes = vectors * isa.lanes * FLOAT_BYTES * slots
        c_block = max(1, min(steps, (L2_BYTES if fetches_rows else L1_BYTES) // row_bytes))
        passes = math.ceil(steps / c_block) * math.ceil(k_vectors / vectors)
        # A quarter of a load of values and of slots each a step, sums read and written once a pass.
        moved = k_vectors * steps + math.ceil(k_vectors / vectors) * steps / 2.0
        return problem.groups * (moved + passes * (2.0 * min(vectors, k_vectors) + PASS_VECTORS)), c_block

    # Rows fetched one by one should be long, but leave a block of output channels to each thread.
    shared = max(min(widest, LEAST_SHARED), math.ceil(k_vectors / problem.threads))
    choices = range(1, widest + 1) if not fetches_rows else (_even_parts(k_vectors, min(widest, shared)),)
    vectors = min(choices, key=lambda count: cut(count)[0])
    streamed, c_block = cut(vectors)
    return SasShape(
        vectors=vectors,
        c_block=c_block,
        tile=math.ceil(pixels / math.ceil(pixels / TILE_PIXELS)),
        fetches_rows=fetches_rows,
        streamed_vectors=streamed,
    )


def rows_read_frac(problem: Problem) -> float:
    """Share of the rows of weights that some pixel chooses, each of m alike."""
    return 1.0 - problem.sparsity ** (problem.n * problem.h_out * problem.w_out)


def _even_parts(count: int, most: int) -> int:
    return math.ceil(count / math.ceil(count / most))


def pack_sas(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, isa: InstructionSet) -> PackedSas:
    """Blocks of rows in the order in which the inner kernel reads them."""
    check_weights(problem, weight, bias)
    flat = _as_rows(problem)
    shape = sas_shape(problem, isa)
    native = _native.SasSelect(
        isa=isa.name,
        weight=to_numpy(weight),
        bias=None if bias is None else to_numpy(bias),
        relu=relu,
        n=flat.n,
        c_in=flat.c_in,
        size=[flat.h_in, flat.w_in],
        stride=list(flat.stride),
        padding=list(flat.padding),
        dilation=list(flat.dilation),
        groups=flat.groups,
        bits=parse_pattern(problem.pattern).slots.bit_length() - 1,
        vectors=shape.vectors,
        c_block=shape.c_block,
        tile=shape.tile,
        fetches_rows=shape.fetches_rows,
    )
    return PackedSas(problem=problem, native=native)


def _as_rows(problem: Problem) -> Problem:
    """The same layer with its pixels in rows as long as can be, where kernel positions have no neighbours."""
    if problem.op == "linear":
        return replace(problem, op="conv2d", n=1, w_in=problem.n)
    if problem.kernel == problem.stride == (1, 1) and problem.padding == (0, 0):
        return replace(problem, h_in=1, w_in=problem.h_in * problem.w_in)
    return problem


def run_sas(packed: PackedSas, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both channels_last, or [N, C] to [N, K], on all of torch's threads.

    Raises
    ------
    InputError
        If `x` has another shape or dtype than the problem, or `residual` is not like the output.
    """
    return run_native(packed.problem, packed.native, x, residual, layout="nhwc")


def sas_cost(problem: Problem, *, isa: InstructionSet) -> Cost:
    """One multiply-add a vector of output channels, each with a load of its own; see `sas_shape`.

    On Zen 4 the time is the streamed bytes at the rate of level 1 plus the others at that of memory, within 0.8 to
    1.3 over ResNet and MobileNetV2 layers; the dense layer over all slots takes ``m * flop`` at 0.9 of the peak. So
    selection wins m / 1.6 to m / 1.4 where weights are reused, about as much where one pixel reads them from memory,
    and least where 4 to 16 pixels do: they choose nearly all rows, so both kernels wait for the same bytes.
    """
    shape = sas_shape(problem, isa)
    k_group = problem.c_out // problem.groups
    steps = problem.weight_count // problem.c_out // parse_pattern(problem.pattern).slots
    pixels = problem.n * problem.h_out * problem.w_out
    outputs = problem.groups * math.ceil(k_group / isa.lanes) * isa.lanes
    tiles, parts = _tasks(problem, shape, isa)
    slot_bytes = problem.input_bytes / FLOAT_BYTES * SLOT_BYTES * parts
    weight_bytes = problem.weight_bytes * rows_read_frac(problem)
    return Cost(
        unit="fma_f32",
        flop=2.0 * pixels * outputs * steps,
        bytes_streamed=shape.streamed_vectors * pixels * isa.lanes * FLOAT_BYTES,
        bytes_moved=problem.input_bytes + problem.output_bytes + weight_bytes,
        tasks=tiles * parts,
        bytes_copied=2.0 * slot_bytes,
    )


def _tasks(problem: Problem, shape: SasShape, isa: InstructionSet) -> tuple[int, int]:
    """Tiles of pixels and parts of the output channels that threads share, as tasks_of in native/sas cuts them."""
    pixels = problem.n * problem.h_out * problem.w_out
    blocks = problem.groups * math.ceil(problem.c_out // problem.groups / (shape.vectors * isa.lanes))
    wanted = 1 if problem.threads == 1 else 4 * problem.threads
    tiles = math.ceil(pixels / shape.tile)
    if tiles * blocks < wanted:
        tiles = min(math.ceil(wanted / blocks), math.ceil(pixels / LEAST_TILE))
    return tiles, min(math.ceil(wanted / tiles), blocks)


def why_select_unsupported(problem: Problem, machine: Machine, *, op: Op, isa: InstructionSet) -> str | None:
    """Why a problem is not one of these kernels', or None."""
    if problem.op != op:
        return f"runs {op}, not {problem.op}"
    if problem.dtype != "float32":
        return f"computes in float32, not {problem.dtype}"
    if isa.name not in machine.isa:
        return f"needs {isa.name}, this machine allows {', '.join(machine.isa) or 'no CPU instruction set'}"
    parts = parse_pattern(problem.pattern).parts
    if len(parts) != 1 or not isinstance(parts[0], SasPart):
        return f"needs a pattern sas:1:m alone, not {problem.pattern!r}"
    if reason := why_slots_undefined(parts[0]):
        return reason
    if (parts[0].m - 1) * isa.lanes * FLOAT_BYTES >= SLOT_LIMIT:
        return f"stores offsets of rows in 16 bits, which {parts[0].m} slots exceed"
    return None


def _spec(op: Op, isa: InstructionSet) -> KernelSpec:
    layout: Layout = "nhwc" if op == "conv2d" else "nchw"
    return KernelSpec(
        name=f"{op}_sas_f32_select{'_nhwc' if op == 'conv2d' else ''}__{isa.name}",
        op=op,
        patterns=("sas",),
        dtype="float32",
        isa=isa.name,
        layout=layout,
        pack=partial(pack_sas, isa=isa),
        run=run_sas,
        cost=partial(sas_cost, isa=isa),
        why_unsupported=partial(why_select_unsupported, op=op, isa=isa),
    )


_OPS: tuple[Op, ...] = ("conv2d", "linear")

KERNELS: tuple[KernelSpec, ...] = tuple(_spec(op, isa) for isa in INSTRUCTION_SETS for op in _OPS)
