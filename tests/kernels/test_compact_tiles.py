"""Compaction in front of the AMX tiles, through emulated tiles; that of other kernels is in test_compact.py."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from sparseplan.kernels import _native
from sparseplan.kernels.compact import KERNELS, compact_kernel, find_survivors
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.problem import DTYPE_BYTES, Dtype, Problem
from sparseplan.kernels.reference import error_limit, relative_error
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.kernels.tile_sparse import KERNELS as TILES
from sparseplan.kernels.tile_sparse import ROW_BYTES, tile_layout
from sparseplan.kernels.weights import make_weight

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        "avx512bf16" not in detect_machine({}).isa, reason="emulated tiles end in AVX-512 with bfloat16"
    ),
]
MACHINE = Machine(isa=("baseline", "avx2", "avx512", "amx"))
PROBLEMS = {
    "pointwise": Problem(op="conv2d", n=2, c_in=192, c_out=70, h_in=6, w_in=5),
    "padded": Problem(op="conv2d", n=2, c_in=100, c_out=40, h_in=7, w_in=6, kernel=(3, 3), padding=(1, 1)),
    "strided": Problem(op="conv2d", n=1, c_in=70, c_out=33, h_in=9, w_in=8, kernel=(3, 2), stride=(2, 1)),
    "linear": Problem(op="linear", n=19, c_in=300, c_out=130),
    "one row": Problem(op="linear", n=1, c_in=130, c_out=20),
}
every_dtype = pytest.mark.parametrize("dtype", ["bfloat16", "int8"])


def kernel_for(problem: Problem) -> KernelSpec:
    """The kernel of the registry with its tiles emulated."""
    tiles = next(kernel for kernel in TILES if kernel.op == problem.op and kernel.dtype == problem.dtype)
    emulated = replace(tiles, pack=partial(tiles.pack.func, isa="amx_emulated"))  # type: ignore[attr-defined]
    return compact_kernel(emulated, tile_channels=ROW_BYTES // DTYPE_BYTES[problem.dtype])


@every_dtype
@pytest.mark.parametrize("pattern", ["filter", "channel", "filter+channel", "filter+shape"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_agrees(name: str, pattern: str, dtype: Dtype) -> None:
    problem = replace(PROBLEMS[name].with_sparsity(pattern, 0.6), dtype=dtype)
    kernel, generator = kernel_for(problem), torch.Generator().manual_seed(2)
    half = make_weight(problem, generator)
    for weight in (half, torch.zeros_like(half), torch.ones_like(half)):
        plain = random_inputs(problem, weight, generator)
        added = plain.with_residual(generator)
        for inputs in (plain, added, replace(added, bias=None, relu=False)):
            _native.fill_scratch(float("nan"), 1)
            y = kernel.run(inputs.pack(kernel), inputs.x_for(kernel), inputs.residual_for(kernel))
            assert y.dtype == inputs.x.dtype
            assert relative_error(y, inputs.expected()) <= error_limit(problem)


@every_dtype
def test_large_biases_of_removed_filters_saturate(dtype: Dtype) -> None:
    problem = replace(PROBLEMS["linear"].with_sparsity("filter", 0.5), dtype=dtype)
    kernel, generator = kernel_for(problem), torch.Generator().manual_seed(3)
    inputs = random_inputs(problem, make_weight(problem, generator), generator).with_residual(generator)
    inputs = replace(inputs, bias=torch.linspace(-1e7, 1e7, problem.c_out).bfloat16().float())
    y = kernel.run(inputs.pack(kernel), inputs.x_for(kernel), inputs.residual_for(kernel))
    assert relative_error(y, inputs.expected()) <= error_limit(problem)


@every_dtype
def test_tiles_are_whole_and_read_in_place(dtype: Dtype) -> None:
    problem = replace(PROBLEMS["pointwise"].with_sparsity("channel", 0.6), dtype=dtype)
    depth, kernel = ROW_BYTES // DTYPE_BYTES[dtype], kernel_for(problem)
    inputs = random_inputs(problem, make_weight(problem, torch.Generator().manual_seed(4)), torch.Generator())
    alive = find_survivors(inputs.weight).channels
    packed = inputs.pack(kernel)
    kept = packed.survivors.channels
    assert packed.survivors.c == len(kept) == -(-len(alive) // depth) * depth
    assert set(alive.tolist()) <= set(kept.tolist())
    assert not tile_layout(packed.inner.problem).copies_input
    smaller = replace(problem.as_dense(), c_in=len(kept))
    tiles = next(kernel for kernel in TILES if kernel.op == "conv2d" and kernel.dtype == dtype)
    assert kernel.cost(problem).flop == tiles.cost(smaller).flop


@every_dtype
def test_nothing_is_gathered_where_tiles_leave_nothing_out(dtype: Dtype) -> None:
    problem = replace(PROBLEMS["one row"].with_sparsity("channel", 0.01), dtype=dtype)
    weight = torch.ones(problem.weight_shape)
    weight[:, 3] = 0.0
    packed = random_inputs(problem, weight, torch.Generator()).pack(kernel_for(problem))
    assert packed.taken is None
    assert packed.survivors.channels is None


def test_the_registry_has_them_for_machines_with_tiles() -> None:
    found = [kernel for kernel in KERNELS if kernel.isa == "amx"]
    assert {(kernel.op, kernel.dtype) for kernel in found} == {(kernel.op, kernel.dtype) for kernel in TILES}
    for kernel in found:
        problem = PROBLEMS["pointwise" if kernel.op == "conv2d" else "linear"]
        problem = replace(problem.with_sparsity("filter+channel", 0.5), dtype=kernel.dtype)
        assert kernel.why_unsupported(problem, MACHINE) is None
        assert "needs amx" in str(kernel.why_unsupported(problem, replace(MACHINE, isa=("baseline",))))
