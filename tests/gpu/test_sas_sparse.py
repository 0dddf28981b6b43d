"""SAS 1:2 with sparse activations: packing, cost and eligibility on any machine, the products on a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gpu_samples import AMPERE, HOPPER, SAS_LAYERS, sas_inputs
from kernel_agreement import check_agreement

from sparseplan.kernels.gpu import sas_sparse
from sparseplan.kernels.gpu.machine import detect_gpu, gpu_machine
from sparseplan.kernels.gpu.sas_sparse import KERNELS, ROWS
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.spec import KernelSpec


def _kernel(problem: Problem, form: str) -> KernelSpec:
    return next(k for k in KERNELS if (k.op, k.dtype) == (problem.op, problem.dtype) and k.name.endswith(f"__{form}"))


def test_weights_lie_as_each_step_reads_them() -> None:
    weight = torch.arange(2.0 * 16 * 80).reshape(16, 160, 1, 1)
    packed = sas_sparse.pack_columns(weight)
    assert packed.shape == (1, 3, 128, 8, 8)
    assert sorted(packed.abs().flatten().tolist())[-weight.numel() :] == sorted(weight.flatten().tolist())
    # Channel 9 is i = 1 of j = 4 of t = 0: row 33, whose chunk 0 lies at 1; odd slots are negated.
    assert packed[0, 0, 33, 1].tolist() == [1440.0, -1441.0, 1442.0, -1443.0, 1444.0, -1445.0, 1446.0, -1447.0]
    assert packed[0, 2, 33, 3 ^ 1].tolist() == [1592.0, -1593.0, 1594.0, -1595.0, 1596.0, -1597.0, 1598.0, -1599.0]
    assert not packed[0, :, 2].any()


@pytest.mark.parametrize("architecture", [80, 86, 90, 120])
def test_steps_fit_into_shared_memory(architecture: int) -> None:
    for rows in {rows for known in ROWS.values() for rows in known}:
        held = sas_sparse.buffers_of(rows, architecture)
        assert held >= 3, rows
        assert held * sas_sparse.step_bytes(rows) <= sas_sparse.SHARED_BYTES[architecture] - 1024


def test_eligibility_names_the_obstacle() -> None:
    by_name = {kernel.name: kernel for kernel in KERNELS}
    old, new = by_name["conv2d_sas_bf16_sparse_nhwc__mma_sp"], by_name["conv2d_sas_bf16_sparse_nhwc__wgmma_sp"]
    problem = replace(SAS_LAYERS["padded"], dtype="bfloat16").with_sparsity("sas:1:2", 0.5)
    assert {old, new} <= set(REGISTRY)
    for kernel in (old, new):
        assert kernel.why_unsupported(problem, HOPPER) is None
        assert "groups" in str(kernel.why_unsupported(replace(problem, groups=4), HOPPER))
        assert "8 channels at once" in str(kernel.why_unsupported(replace(problem, c_in=41), HOPPER))
        assert "own sign" in str(kernel.why_unsupported(problem.with_sparsity("sas:1:4", 0.75), HOPPER))
        assert "float32" in str(kernel.why_unsupported(replace(problem, dtype="float32"), HOPPER))
    assert old.why_unsupported(problem, AMPERE) is None
    assert "needs sm_90a" in str(new.why_unsupported(problem, AMPERE))
    blackwell = gpu_machine((10, 0), has_triton=True, has_cusparselt=True)
    assert old.why_unsupported(problem, blackwell) is None
    assert "needs sm_90a" in str(new.why_unsupported(problem, blackwell))


def test_cost_counts_whole_tiles_and_steps() -> None:
    problem = Problem(op="linear", n=100, c_in=40, c_out=136, dtype="bfloat16").with_sparsity("sas:1:2", 0.5)
    cost = _kernel(problem, "wgmma_sp").cost(problem)
    assert cost.flop == 2 * 128 * 256 * 128
    assert cost.tasks == 2
    assert cost.bytes_moved == 2 * 100 * (40 + 136) + 2 * 256 * 128
    assert cost.bytes_streamed == 2 * 2 * (128 * 64 + 128 * 128) + 2 * 100 * 136
    large = replace(problem, n=4096, c_in=4096, c_out=4096)
    # Of a large product nothing is padding: the work of the dense layer of twice the inputs, at twice its rate.
    assert _kernel(large, "wgmma_sp").cost(large).flop == large.flop_dense_equiv


def test_tiles_shrink_until_there_are_enough() -> None:
    problem = Problem(op="linear", n=4096, c_in=64, c_out=4096).with_sparsity("sas:1:2", 0.5)
    assert sas_sparse.rows_of(problem, "wgmma_sp") == 256
    assert sas_sparse.rows_of(replace(problem, c_out=512), "mma_sp") == 64
    assert sas_sparse.rows_of(replace(problem, c_out=512), "wgmma_sp") == 128


@pytest.mark.needs_gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_against_reference_on_a_gpu(kernel: KernelSpec) -> None:
    machine = detect_gpu()
    shapes = [*SAS_LAYERS.values(), Problem(op="linear", n=2300, c_in=520, c_out=2056)]
    shapes.append(replace(SAS_LAYERS["padded"], n=64, c_in=256, c_out=256, h_in=14, w_in=14))
    for shape in (replace(shape, dtype=kernel.dtype) for shape in shapes if shape.op == kernel.op):
        plain = sas_inputs(shape)
        if reason := kernel.why_unsupported(plain.problem, machine):
            pytest.skip(reason)
        added = plain.with_residual(torch.Generator().manual_seed(2))
        for inputs in (plain, added, replace(added, bias=None, relu=False)):
            check_agreement(kernel, inputs, device=torch.device("cuda"))
