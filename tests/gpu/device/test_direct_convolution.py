"""Direct sparse convolution on awkward shapes and weights, against the float64 reference."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from gpu_samples import CONVOLUTIONS, HOPPER, weights
from kernel_agreement import check_agreement

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.gpu.direct_convolution import KERNELS, tile_pixels
from sparseplan.kernels.inputs import random_inputs

(KERNEL,) = KERNELS
MOST_WEIGHTS = 30


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_against_reference(name: str, device: torch.device) -> None:
    shape = CONVOLUTIONS[name]
    # An interpreter takes a millisecond for each weight.
    problem = shape.with_sparsity("unstructured", max(0.5, 1.0 - MOST_WEIGHTS / shape.weight_count))
    generator = torch.Generator().manual_seed(1)
    plain = random_inputs(problem, weights(problem, generator)["pattern"], generator)
    check_agreement(KERNEL, plain, device=device, runs=2)
    check_agreement(KERNEL, replace(plain.with_residual(generator), bias=None, relu=False), device=device)


@pytest.mark.parametrize("name", ["all_zero", "single", "all_dense"])
def test_any_zeros_are_right(name: str, device: torch.device) -> None:
    problem = CONVOLUTIONS["strided_padded"].with_sparsity("unstructured", 0.9)
    problem = replace(problem, c_in=4, c_out=5)
    generator = torch.Generator().manual_seed(2)
    check_agreement(KERNEL, random_inputs(problem, weights(problem, generator)[name], generator), device=device)


def test_infinite_pixels_stay_where_they_are(device: torch.device) -> None:
    """Nothing is multiplied but weights that are not zero: an infinity elsewhere makes no NaN."""
    problem = replace(CONVOLUTIONS["pointwise"], c_in=3, c_out=2).with_sparsity("unstructured", 0.5)
    weight = torch.zeros(problem.weight_shape)
    weight[:, 1] = 1.0
    x = torch.randn(problem.input_shape)
    x[:, 0] = math.inf
    y = KERNEL.run(KERNEL.pack(problem, weight.to(device), None, False), x.to(device))
    torch.testing.assert_close(y.cpu(), x[:, 1:2].expand_as(y))


def test_foreign_inputs_are_refused(device: torch.device) -> None:
    problem = CONVOLUTIONS["odd"].with_sparsity("unstructured", 0.9)
    generator = torch.Generator().manual_seed(5)
    inputs = random_inputs(problem, weights(problem, generator)["pattern"], generator).on(device)
    packed, x = inputs.pack(KERNEL), inputs.x
    for wrong in (x[1:], x.double(), x.to("meta")):
        with pytest.raises(InputError, match="the packed problem needs"):
            KERNEL.run(packed, wrong)
    with pytest.raises(InputError, match="residual is"):
        KERNEL.run(packed, x, x)
    with pytest.raises(InputError, match="weight is"):
        KERNEL.pack(problem, inputs.weight[1:], None, True)


def test_tiles_and_eligibility() -> None:
    large = replace(CONVOLUTIONS["tail"], n=64, h_in=56, w_in=56)
    assert tile_pixels(large) == 512
    assert tile_pixels(CONVOLUTIONS["one_of_all"]) == 32
    sparse = large.with_sparsity("unstructured", 0.95)
    assert KERNEL.why_unsupported(sparse, HOPPER) is None
    assert "single weights" in str(KERNEL.why_unsupported(large.with_sparsity("shape", 0.5), HOPPER))
    assert "not conv2d in bfloat16" in str(KERNEL.why_unsupported(replace(sparse, dtype="bfloat16"), HOPPER))
    assert KERNEL.cost(sparse).flop == pytest.approx(2 * 0.05 * 64 * 56 * 56 * 72 * 48 * 9)
