"""2:4 products: eligibility and packing on any machine, the products on a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gpu_samples import AMPERE, HOPPER
from kernel_agreement import check_agreement

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.gpu.machine import detect_gpu, gpu_machine
from sparseplan.kernels.gpu.semi_structured import KERNELS, is_two_of_four, pack_two_of_four
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.spec import KernelSpec
from sparseplan.kernels.weights import make_weight

LINEAR = Problem(op="linear", n=70, c_in=256, c_out=96, dtype="float16", pattern="2:4", sparsity=0.5)
POINTWISE = Problem(op="conv2d", n=2, c_in=128, c_out=64, h_in=7, w_in=5, dtype="bfloat16", pattern="2:4", sparsity=0.5)


def _named(name: str) -> KernelSpec:
    return next(kernel for kernel in KERNELS if kernel.name == name)


def test_eligibility_names_the_obstacle() -> None:
    kernel = _named("linear_2of4_f16_nchw__cusparselt")
    assert kernel.why_unsupported(LINEAR, HOPPER) is None
    assert "multiples of 16" in str(kernel.why_unsupported(replace(LINEAR, c_out=100), HOPPER))
    assert "keeps 2 of 4" in str(kernel.why_unsupported(LINEAR.with_sparsity("1:4", 0.75), HOPPER))
    without = gpu_machine((9, 0), has_triton=True, has_cusparselt=False)
    assert "no 2:4 products of cusparselt" in str(kernel.why_unsupported(LINEAR, without))
    conv = _named("conv2d_2of4_bf16_nhwc__cusparselt")
    assert conv.why_unsupported(POINTWISE, HOPPER) is None
    assert "1x1" in str(conv.why_unsupported(replace(POINTWISE, kernel=(3, 3), padding=(1, 1)), HOPPER))


def test_cutlass_is_for_compute_capability_8() -> None:
    kernel = _named("linear_2of4_f16_nchw__cutlass")
    assert kernel.why_unsupported(LINEAR, AMPERE) is None
    assert "cutlass" in str(kernel.why_unsupported(LINEAR, HOPPER))


def test_weights_that_are_not_2_of_4_are_refused() -> None:
    weight = torch.ones(LINEAR.weight_shape)
    assert not is_two_of_four(weight.reshape(96, 256))
    with pytest.raises(InputError, match="not 2:4"):
        pack_two_of_four(LINEAR, weight, None, True, layout="nchw", library="cutlass")


def test_masked_weights_are_2_of_4() -> None:
    weight = make_weight(LINEAR, torch.Generator().manual_seed(1)).reshape(96, 256)
    assert is_two_of_four(weight)
    assert not is_two_of_four(weight.roll(1, dims=1).abs() + weight.abs())


@pytest.mark.needs_gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("n", [1, 3, 70, 512])
def test_against_reference_on_a_gpu(kernel: KernelSpec, n: int) -> None:
    problem = replace(LINEAR if kernel.op == "linear" else POINTWISE, dtype=kernel.dtype, n=n)
    if reason := kernel.why_unsupported(problem, detect_gpu()):
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(2)
    plain = random_inputs(problem, make_weight(problem, generator), generator)
    for inputs in (plain, plain.with_residual(generator), replace(plain, bias=None, relu=False)):
        check_agreement(kernel, inputs, device=torch.device("cuda"))
