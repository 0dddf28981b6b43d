"""SAS 1:2 through dense libraries: on the CPU where torch has the same operators, all of it on a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gpu_samples import CONVOLUTIONS, HOPPER, LINEARS
from kernel_agreement import check_agreement

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.gpu.sas_halves import KERNELS
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.spec import KernelSpec
from sparseplan.kernels.weights import make_weight

ON_ANY_DEVICE = [kernel for kernel in KERNELS if not kernel.name.endswith("__cudnn_fused")]


def _agrees(kernel: KernelSpec, shape: Problem, device: str) -> None:
    problem = replace(shape, dtype=kernel.dtype).with_sparsity("sas:1:2", 0.5)
    generator = torch.Generator().manual_seed(1)
    plain = random_inputs(problem, make_weight(problem, generator), generator)
    plain.x[0, ::3] = 0.0
    for inputs in (plain, plain.with_residual(generator), replace(plain, bias=None, relu=False)):
        check_agreement(kernel, inputs, device=torch.device(device))


@pytest.mark.parametrize("kernel", ON_ANY_DEVICE, ids=lambda kernel: kernel.name)
def test_against_reference_on_the_cpu(kernel: KernelSpec) -> None:
    for name in ("odd", "tail"):
        _agrees(kernel, (CONVOLUTIONS if kernel.op == "conv2d" else LINEARS)[name], "cpu")


@pytest.mark.needs_gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_against_reference_on_a_gpu(kernel: KernelSpec) -> None:
    for shape in (CONVOLUTIONS if kernel.op == "conv2d" else LINEARS).values():
        if kernel.why_unsupported(shape.with_sparsity("sas:1:2", 0.5), HOPPER) is None:
            _agrees(kernel, shape, "cuda")


def test_eligibility_names_the_obstacle() -> None:
    kernel = next(kernel for kernel in KERNELS if kernel.name == "conv2d_sas_f32_halves_nhwc__cudnn")
    assert kernel in REGISTRY
    assert kernel.why_unsupported(CONVOLUTIONS["odd"].with_sparsity("sas:1:2", 0.5), HOPPER) is None
    assert "groups" in str(kernel.why_unsupported(CONVOLUTIONS["grouped"].with_sparsity("sas:1:2", 0.5), HOPPER))
    assert "own sign" in str(kernel.why_unsupported(CONVOLUTIONS["odd"].with_sparsity("sas:1:4", 0.75), HOPPER))
    assert "sas:1:m" in str(kernel.why_unsupported(CONVOLUTIONS["odd"], HOPPER))


def test_cost_counts_the_wide_layer_and_the_halves() -> None:
    problem = LINEARS["tail"].with_sparsity("sas:1:2", 0.5)
    kernel = next(kernel for kernel in KERNELS if kernel.name == "linear_sas_f32_halves_nchw__cublas_fused")
    assert kernel.cost(problem).flop == 2 * 128 * 128 * 2 * 176
    assert kernel.cost(problem).bytes_copied == 6 * problem.input_bytes


def test_foreign_inputs_are_refused() -> None:
    problem = LINEARS["tail"].with_sparsity("sas:1:2", 0.5)
    kernel = next(kernel for kernel in KERNELS if kernel.name == "linear_sas_f32_halves_nchw__cublas")
    generator = torch.Generator().manual_seed(1)
    inputs = random_inputs(problem, make_weight(problem, generator), generator)
    packed = inputs.pack(kernel)
    for wrong in (inputs.x[1:], inputs.x.double(), inputs.x.to("meta")):
        with pytest.raises(InputError, match="the packed problem needs"):
            kernel.run(packed, wrong)
    with pytest.raises(InputError, match="weight is"):
        kernel.pack(problem, inputs.weight[:, 1:], None, True)
