"""Triton's sparse products on awkward shapes and weights, against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from gpu_samples import CONVOLUTIONS, HOPPER, LINEARS, weights
from kernel_agreement import check_agreement

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.gpu import gather_product
from sparseplan.kernels.gpu.gather_product import KERNELS, pack_product, run_product, tile_of
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import error_limit, relative_error
from sparseplan.kernels.spec import KernelSpec

PATTERNS = {
    "block": ("block:16x16", "block:32x32", "block:64x64", "block:16x64"),
    "shape": ("shape",),
    "channel": (),
    "v:n:m": ("16:2:16", "32:1:4"),
}


def _cases() -> Iterator[object]:
    for kernel in KERNELS:
        for name, shape in (CONVOLUTIONS if kernel.op == "conv2d" else LINEARS).items():
            for number, pattern in enumerate(p for kind in kernel.patterns for p in PATTERNS[kind]):
                sized = replace(shape, dtype=kernel.dtype).with_sparsity(pattern, 0.6)
                # Every dtype sees every shape; the larger blocks come in one dtype each.
                if number == 0 or number % 3 == ("float32", "bfloat16", "float16").index(kernel.dtype):
                    yield pytest.param(kernel, sized, id=f"{kernel.name}-{name}-{pattern}")


@pytest.mark.parametrize(("kernel", "problem"), tuple(_cases()))
def test_against_reference(kernel: KernelSpec, problem: Problem, device: torch.device) -> None:
    if reason := kernel.why_unsupported(problem, HOPPER):
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(1)
    plain = random_inputs(problem, weights(problem, generator)["pattern"], generator)
    check_agreement(kernel, plain.with_residual(generator), device=device)
    check_agreement(kernel, replace(plain, bias=None, relu=False), device=device)


@pytest.mark.parametrize("name", ["scattered", "all_dense", "all_zero", "single"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_any_zeros_are_right(kernel: KernelSpec, name: str, device: torch.device) -> None:
    shape = (CONVOLUTIONS if kernel.op == "conv2d" else LINEARS)["tail"]
    problem = replace(shape, dtype=kernel.dtype).with_sparsity(kernel.patterns[0].replace("block", "block:32x16"), 0.6)
    generator = torch.Generator().manual_seed(2)
    check_agreement(kernel, random_inputs(problem, weights(problem, generator)[name], generator), device=device, runs=2)


def test_columns_and_channels_together(device: torch.device) -> None:
    for pattern in ("channel", "filter+shape", "channel+block:32x32"):
        problem = replace(CONVOLUTIONS["tail"], dtype="float16").with_sparsity(pattern, 0.75)
        generator = torch.Generator().manual_seed(3)
        inputs = random_inputs(problem, weights(problem, generator)["pattern"], generator)
        for kernel in KERNELS:
            if kernel.why_unsupported(problem, HOPPER) is None:
                check_agreement(kernel, inputs, device=device)


def test_other_tiles_agree(device: torch.device) -> None:
    """Whatever the tile, the product is the same layer."""
    problem = replace(CONVOLUTIONS["tail"], dtype="bfloat16").with_sparsity("block:16x16", 0.5)
    generator = torch.Generator().manual_seed(4)
    inputs = random_inputs(problem, weights(problem, generator)["pattern"], generator)
    there, chosen = inputs.on(device), tile_of(problem)
    for changes in ({"pixels": 16}, {"outputs": 64}, {"run": 8}, {"run": 1}, {"depth": 32}, {"depth": 16}):
        packed = pack_product(
            problem, there.weight, there.bias, there.relu, layout="nhwc", tile=replace(chosen, **changes)
        )
        y = run_product(packed, there.x.contiguous(memory_format=torch.channels_last))
        assert relative_error(y.cpu(), inputs.expected()) <= error_limit(problem), changes


def test_foreign_inputs_are_refused(device: torch.device) -> None:
    problem = LINEARS["full_blocks"].with_sparsity("block:32x32", 0.5)
    generator = torch.Generator().manual_seed(5)
    inputs = random_inputs(problem, weights(problem, generator)["pattern"], generator).on(device)
    kernel = next(k for k in KERNELS if k.name == "linear_blocks_f32_nchw__triton")
    packed, x = inputs.pack(kernel), inputs.x
    for wrong in (x[1:], x.double(), x.to("meta")):
        with pytest.raises(InputError, match="the packed problem needs"):
            kernel.run(packed, wrong)
    with pytest.raises(InputError, match="residual is"):
        kernel.run(packed, x, x[:, 1:])
    with pytest.raises(InputError, match="weight is"):
        gather_product.pack_product(problem, inputs.weight[1:], None, True, layout="nchw")
