"""Sparse convolution that skips any zero weight: batch-interleaved and flat, in every memory order."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from .dense import SHORT_DTYPES
from .flat_cost import flat_cost
from .flat_sparse import FLAT_VARIANTS, PackedFlat, pack_flat, run_flat, why_flat_unsupported
from .layout import BLOCK_IMAGES
from .native_layer import (
    HALF_PRECISION,
    INSTRUCTION_SETS,
    NATIVE_PATTERNS,
    InstructionSet,
    why_native_unsupported,
)
from .problem import Problem
from .spec import Cost, KernelSpec, Layout, Machine


def _pack(
    problem: Problem,
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    *,
    isa: InstructionSet,
    interleaved: bool,
    layout: Layout,
) -> PackedFlat:
    return pack_flat(problem, weight, bias, relu=relu, isa=isa, interleaved=interleaved, layout=layout)


def _cost(problem: Problem, *, isa: InstructionSet, interleaved: bool, layout: Layout) -> Cost:
    return flat_cost(problem, isa, interleaved=interleaved, layout=layout)


def _why_unsupported(
    problem: Problem, machine: Machine, *, isa: InstructionSet, interleaved: bool, layout: Layout
) -> str | None:
    return why_native_unsupported(problem, machine, op="conv2d", isa=isa) or why_flat_unsupported(
        problem, isa, interleaved=interleaved, layout=layout
    )


def _spec(isa: InstructionSet, *, interleaved: bool, layout: Layout) -> KernelSpec:
    """``conv2d_unstructured_{dtype}_{method}[_{layout}]__{isa}``; the layout is left out where it is nchw."""
    narrow = isa in FLAT_VARIANTS and isa not in INSTRUCTION_SETS
    method = f"n{isa.lanes}" if interleaved else f"flat{isa.lanes}" if narrow else "flat"
    named = method if layout == "nchw" else f"{method}_{layout}"
    return KernelSpec(
        name=f"conv2d_unstructured_{SHORT_DTYPES[isa.dtype]}_{named}__{isa.name}",
        op="conv2d",
        patterns=NATIVE_PATTERNS,
        dtype=isa.dtype,
        isa=isa.name,
        layout=layout,
        pack=partial(_pack, isa=isa, interleaved=interleaved, layout=layout),
        run=run_flat,
        cost=partial(_cost, isa=isa, interleaved=interleaved, layout=layout),
        why_unsupported=partial(_why_unsupported, isa=isa, interleaved=interleaved, layout=layout),
    )


def flat_kernels(isa: InstructionSet) -> tuple[KernelSpec, ...]:
    """Every form of the flat convolution in an instruction set; blocked ones where a layout has blocks of its width."""
    blocked = tuple(layout for layout, images in BLOCK_IMAGES.items() if images == isa.lanes)
    network: tuple[Layout, ...] = ("nchw", "nhwc")
    return (
        *(_spec(isa, interleaved=True, layout=layout) for layout in (*network, *blocked)),
        *(_spec(isa, interleaved=False, layout=layout) for layout in network),
    )


KERNELS: tuple[KernelSpec, ...] = tuple(
    kernel for isa in (*FLAT_VARIANTS, HALF_PRECISION) for kernel in flat_kernels(isa)
)
