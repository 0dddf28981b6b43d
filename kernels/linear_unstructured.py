"""Sparse linear layer that skips any zero weight, in float32.

For batches that fill vectors it is the flat sparse convolution over images of one pixel; for small ones rows of the
weight are interleaved and the input is gathered (SELL-C-sigma).

References
----------
Kreutzer et al., A unified sparse matrix data format for efficient general sparse matrix-vector multiplication on modern
processors with wide SIMD units, SIAM J. Sci. Comput. 36(5), 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from . import _native
from .check import check_weights
from .flat_cost import flat_cost
from .flat_sparse import PackedFlat, pack_flat, run_flat, why_flat_unsupported
from .native_layer import (
    INSTRUCTION_SETS,
    NATIVE_PATTERNS,
    InstructionSet,
    run_native,
    to_numpy,
    why_native_unsupported,
)
from .problem import Problem
from .spec import Cost, KernelSpec, Machine

SELL_ENTRY_BYTES = 6
"""One packed non-zero: value and 16-bit column."""
GATHER_BYTES = 64
"""What a gathered float counts for among bytes streamed: each is a load of its own, and takes as long as one or two
loads of a whole vector (1.3 cycles measured on Zen 4)."""
SELL_COLUMN_LIMIT = 65536
SELL_IMAGES = 4
"""Images that share one read of values and columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSell:
    """Weights ready to run, for exactly one problem."""

    problem: Problem
    native: _native.SellSparse


def _pack_interleaved(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, isa: InstructionSet
) -> PackedFlat:
    return pack_flat(problem, weight, bias, relu=relu, isa=isa, interleaved=True)


def _cost_interleaved(problem: Problem, *, isa: InstructionSet) -> Cost:
    return flat_cost(problem, isa, interleaved=True)


def _why_interleaved_unsupported(problem: Problem, machine: Machine, *, isa: InstructionSet) -> str | None:
    return why_native_unsupported(problem, machine, op="linear", isa=isa) or why_flat_unsupported(
        problem, isa, interleaved=True
    )


def _pack_sell(problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, isa: InstructionSet) -> PackedSell:
    check_weights(problem, weight, bias)
    native = _native.SellSparse(
        isa=isa.name,
        n=problem.n,
        weight=to_numpy(weight).reshape(problem.c_out, problem.c_in),
        bias=None if bias is None else to_numpy(bias),
        relu=relu,
    )
    return PackedSell(problem=problem, native=native)


def _run_sell(packed: PackedSell, x: Tensor, residual: Tensor | None = None) -> Tensor:
    return run_native(packed.problem, packed.native, x, residual)


def _cost_sell(problem: Problem, *, isa: InstructionSet) -> Cost:
    """Rows sorted by length leave little padding inside a slice; what remains is the last slice's empty lanes."""
    slices = math.ceil(problem.c_out / isa.lanes)
    stored = problem.c_in * (1.0 - problem.sparsity) * slices * isa.lanes
    passes = problem.n // SELL_IMAGES + (problem.n % SELL_IMAGES).bit_count()
    gathered = stored * problem.n * GATHER_BYTES
    return Cost(
        unit="fma_f32",
        flop=2.0 * stored * problem.n,
        bytes_streamed=stored * SELL_ENTRY_BYTES * passes + gathered + problem.output_bytes,
        bytes_moved=problem.input_bytes + problem.output_bytes + stored * SELL_ENTRY_BYTES,
        tasks=slices,
        starts=float(slices * passes),
    )


def _why_sell_unsupported(problem: Problem, machine: Machine, *, isa: InstructionSet) -> str | None:
    reason = why_native_unsupported(problem, machine, op="linear", isa=isa)
    if reason is None and problem.c_in > SELL_COLUMN_LIMIT:
        return f"stores columns in 16 bits: {problem.c_in} inputs exceed {SELL_COLUMN_LIMIT}"
    return reason


def _interleaved_spec(isa: InstructionSet) -> KernelSpec:
    return KernelSpec(
        name=f"linear_unstructured_f32_n{isa.lanes}__{isa.name}",
        op="linear",
        patterns=NATIVE_PATTERNS,
        dtype="float32",
        isa=isa.name,
        layout="nchw",
        pack=partial(_pack_interleaved, isa=isa),
        run=run_flat,
        cost=partial(_cost_interleaved, isa=isa),
        why_unsupported=partial(_why_interleaved_unsupported, isa=isa),
    )


def _sell_spec(isa: InstructionSet) -> KernelSpec:
    return KernelSpec(
        name=f"linear_unstructured_f32_sell__{isa.name}",
        op="linear",
        patterns=NATIVE_PATTERNS,
        dtype="float32",
        isa=isa.name,
        layout="nchw",
        pack=partial(_pack_sell, isa=isa),
        run=_run_sell,
        cost=partial(_cost_sell, isa=isa),
        why_unsupported=partial(_why_sell_unsupported, isa=isa),
    )


KERNELS: tuple[KernelSpec, ...] = tuple(
    spec(isa) for isa in INSTRUCTION_SETS for spec in (_interleaved_spec, _sell_spec)
)
