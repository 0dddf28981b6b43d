"""Sparse convolution that skips any zero weight, in float32: batch-interleaved and flat layouts."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from .flat_sparse import FLAT_VARIANTS, PackedFlat, flat_cost, pack_flat, run_flat, why_flat_unsupported
from .native_layer import INSTRUCTION_SETS, NATIVE_PATTERNS, InstructionSet, why_native_unsupported
from .problem import Problem
from .spec import Cost, KernelSpec, Machine


def _pack(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, isa: InstructionSet, interleaved: bool
) -> PackedFlat:
    return pack_flat(problem, weight, bias, relu=relu, isa=isa, interleaved=interleaved)


def _cost(problem: Problem, *, isa: InstructionSet, interleaved: bool) -> Cost:
    return flat_cost(problem, isa, interleaved=interleaved)


def _why_unsupported(problem: Problem, machine: Machine, *, isa: InstructionSet, interleaved: bool) -> str | None:
    return why_native_unsupported(problem, machine, op="conv2d", isa=isa) or why_flat_unsupported(
        problem, isa, interleaved=interleaved
    )


def _spec(isa: InstructionSet, *, interleaved: bool) -> KernelSpec:
    narrow = isa not in INSTRUCTION_SETS
    layout = f"n{isa.lanes}" if interleaved else f"flat{isa.lanes}" if narrow else "flat"
    return KernelSpec(
        name=f"conv2d_unstructured_f32_{layout}__{isa.name}",
        op="conv2d",
        patterns=NATIVE_PATTERNS,
        dtype="float32",
        isa=isa.name,
        layout="nchw",
        pack=partial(_pack, isa=isa, interleaved=interleaved),
        run=run_flat,
        cost=partial(_cost, isa=isa, interleaved=interleaved),
        why_unsupported=partial(_why_unsupported, isa=isa, interleaved=interleaved),
    )


KERNELS: tuple[KernelSpec, ...] = tuple(
    _spec(isa, interleaved=interleaved) for isa in FLAT_VARIANTS for interleaved in (True, False)
)
