"""Dense kernels: eligibility, cost, and what oneDNN needs from torch."""

from dataclasses import replace

import pytest
import torch

from sparseplan.kernels import dense
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import kernel_named
from sparseplan.kernels.spec import Machine

CONV = Problem(op="conv2d", n=2, c_in=16, c_out=32, h_in=8, w_in=8, kernel=(3, 3), padding=(1, 1))
LINEAR = Problem(op="linear", n=4, c_in=16, c_out=32)
MACHINE = Machine(isa=("baseline", "avx2", "avx512"), torch_ops=dense.CONV_OPS + dense.LINEAR_OPS)


def test_operators_that_onednn_kernels_use_exist_in_this_torch() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    for name in MACHINE.torch_ops:
        library, operator = name.split("::")
        assert hasattr(getattr(torch.ops, library), operator), name


def test_onednn_is_ineligible_without_its_operators() -> None:
    bare = replace(MACHINE, torch_ops=())
    assert "_reorder_convolution_weight" in str(dense.why_onednn_unsupported(CONV, bare))
    assert "_reorder_linear_weight" in str(dense.why_onednn_unsupported(LINEAR, bare))
    assert dense.why_onednn_unsupported(CONV, MACHINE) is None
    assert dense.why_torch_unsupported(CONV, bare) is None


def test_onednn_bfloat16_needs_avx512() -> None:
    old = replace(MACHINE, isa=("baseline", "avx2"))
    problem = replace(CONV, dtype="bfloat16")
    assert "needs avx512 for bfloat16" in str(dense.why_onednn_unsupported(problem, old))
    assert dense.why_onednn_unsupported(CONV, old) is None


def test_sparse_activations_and_other_devices_are_refused() -> None:
    assert "sas:1:2" in str(dense.why_torch_unsupported(CONV.with_sparsity("sas:1:2", 0.5), MACHINE))
    assert "cuda" in str(dense.why_torch_unsupported(CONV, replace(MACHINE, device="cuda")))


def test_cost_ignores_sparsity() -> None:
    for kernel in dense.KERNELS:
        problem = replace(CONV if kernel.op == "conv2d" else LINEAR, dtype=kernel.dtype)
        assert kernel.cost(problem) == kernel.cost(problem.with_sparsity("unstructured", 0.9))


def test_cost_by_hand() -> None:
    cost = dense.prepacked_cost(CONV)
    assert cost.flop == CONV.flop_dense_equiv
    # 128 pixels in tiles of 14 x 32: each multiply-add streams 4 bytes * (1/14 + 1/32).
    assert cost.bytes_streamed == pytest.approx(CONV.flop_dense_equiv / 2 * 4 * (1 / 14 + 1 / 32))
    assert cost.bytes_moved == 4 * (2 * 16 * 64 + 2 * 32 * 64 + 32 * 16 * 9)
    assert cost.tasks == 10
    eager = kernel_named("conv2d_dense_f32_nhwc__torch").cost(CONV)
    assert eager.bytes_moved == cost.bytes_moved
    assert eager.bytes_copied - cost.bytes_copied == 2 * 4 * 32 * 16 * 9


def test_cost_rounds_output_channels_up_and_spreads_depthwise_groups() -> None:
    narrow = dense.prepacked_cost(replace(CONV, c_out=17))
    assert narrow.flop == dense.prepacked_cost(CONV).flop
    depthwise = dense.prepacked_cost(replace(CONV, c_in=32, groups=32))
    assert depthwise.flop == replace(CONV, c_in=32, groups=32).flop_dense_equiv
    assert depthwise.bytes_streamed / depthwise.flop > 5 * narrow.bytes_streamed / narrow.flop


def test_packing_survives_a_change_of_dtype() -> None:
    weight = torch.randn(CONV.weight_shape)
    packed = dense.pack_conv2d_torch(replace(CONV, dtype="bfloat16"), weight, torch.randn(32), False, layout="nhwc")
    assert packed.weight.dtype == torch.bfloat16
    assert packed.weight.is_contiguous(memory_format=torch.channels_last)
    assert packed.bias is not None
    assert packed.bias.dtype == torch.bfloat16


def test_networks_run_a_float32_linear_through_mkl_where_torch_has_it() -> None:
    onednn = kernel_named("linear_dense_f32_nchw__onednn")
    with_mkl, without = Machine(isa=(), torch_ops=(*dense.LINEAR_OPS, *dense.MKL_OPS)), Machine(isa=())
    assert not dense.runs_in_networks(onednn, with_mkl)
    assert dense.runs_in_networks(onednn, without)
    others = [kernel for kernel in dense.KERNELS if kernel.name != onednn.name]
    assert all(dense.runs_in_networks(kernel, with_mkl) for kernel in others)
    assert "lacks" in (dense.why_mkl_unsupported(LINEAR, without) or "")
