"""Dense layers through torch's libraries: on the CPU where torch has the same operators, the rest on a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gpu_samples import CONVOLUTIONS, HOPPER, LINEARS
from kernel_agreement import check_agreement

from sparseplan.kernels.gpu.dense import KERNELS, library_cost
from sparseplan.kernels.gpu.machine import gpu_machine
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.kernels.weights import make_weight

ON_ANY_DEVICE = [kernel for kernel in KERNELS if kernel.name.endswith(("__cublas", "__cublas_fused", "__cudnn"))]


def _agrees(kernel: KernelSpec, shape: Problem, device: str) -> None:
    problem = replace(shape, dtype=kernel.dtype)
    generator = torch.Generator().manual_seed(1)
    plain = random_inputs(problem, make_weight(problem, generator), generator)
    added = plain.with_residual(generator)
    for inputs in (plain, added, replace(plain, bias=None), replace(plain, relu=False), replace(added, relu=False)):
        check_agreement(kernel, inputs, device=torch.device(device))


@pytest.mark.parametrize("kernel", ON_ANY_DEVICE, ids=lambda kernel: kernel.name)
def test_against_reference_on_the_cpu(kernel: KernelSpec) -> None:
    for name in ("odd", "tail"):
        _agrees(kernel, (CONVOLUTIONS if kernel.op == "conv2d" else LINEARS)[name], "cpu")


@pytest.mark.needs_gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_against_reference_on_a_gpu(kernel: KernelSpec) -> None:
    for shape in (CONVOLUTIONS if kernel.op == "conv2d" else LINEARS).values():
        if kernel.why_unsupported(shape, HOPPER) is None:
            _agrees(kernel, shape, "cuda")


def test_eligibility() -> None:
    problem = LINEARS["tail"]
    for kernel in KERNELS:
        assert "CUDA GPU only" in str(kernel.why_unsupported(problem, Machine(isa=("baseline",))))
        assert kernel.why_unsupported(problem, HOPPER) is None
        old = gpu_machine((7, 5), has_triton=True, has_cusparselt=False)
        assert "needs sm_80" in str(kernel.why_unsupported(problem, old))


def test_cost_counts_whole_tiles() -> None:
    cost = library_cost(Problem(op="linear", n=100, c_in=32, c_out=200, dtype="bfloat16"), is_fused=False)
    assert cost.flop == 2 * 128 * 256 * 32
    assert cost.tasks == 2
    assert cost.bytes_copied == 2 * 100 * 200 * 2


def test_every_gpu_kernel_is_tested_somewhere() -> None:
    """Each family has its own test file here; a new one must be added to this list with its tests."""
    tested = (
        "__cublas",
        "__cublas_fused",
        "__cudnn",
        "__cudnn_fused",
        "__triton",
        "__cusparselt",
        "__cutlass",
        "__mma_sp",
        "__wgmma_sp",
    )
    assert all(kernel.name.endswith(tested) for kernel in REGISTRY if kernel.device == "cuda")
