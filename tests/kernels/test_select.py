"""select(): pure, and dense where sparsity is not worth it."""

from dataclasses import replace

import pytest

from sparseplan.kernels.dense import CONV_OPS, LINEAR_OPS
from sparseplan.kernels.gpu.machine import gpu_machine
from sparseplan.kernels.problem import Dtype, Problem
from sparseplan.kernels.registry import REGISTRY, kernel_named
from sparseplan.kernels.select import NoKernel, eligible, nominal_time_s, select, why_ineligible
from sparseplan.kernels.spec import KernelSpec, Machine

MACHINE = Machine(isa=("baseline", "avx2", "avx512"), torch_ops=CONV_OPS + LINEAR_OPS)
CONV = Problem(op="conv2d", n=16, c_in=256, c_out=384, h_in=13, w_in=13, kernel=(3, 3), padding=(1, 1))
LINEAR = Problem(op="linear", n=8, c_in=1024, c_out=1024)


def _chosen(problem: Problem, machine: Machine = MACHINE) -> KernelSpec:
    choice = select(problem, machine, REGISTRY)
    assert isinstance(choice, KernelSpec)
    return choice


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_problems_get_dense_kernels(dtype: Dtype) -> None:
    for problem in (CONV, LINEAR):
        sized = replace(problem, dtype=dtype)
        candidates = eligible(sized, MACHINE, REGISTRY)
        assert candidates
        assert all("dense" in kernel.patterns and kernel.dtype == dtype for kernel in candidates)
        assert _chosen(sized).patterns == ("dense",)


def test_prepacked_weights_beat_eager() -> None:
    assert _chosen(CONV).name == "conv2d_dense_f32_nhwc__onednn"
    assert _chosen(LINEAR).name == "linear_dense_f32_nchw__onednn"
    assert _chosen(CONV, replace(MACHINE, torch_ops=())).name == "conv2d_dense_f32_nhwc__torch"


def test_sparsity_that_is_not_worth_it_stays_dense() -> None:
    assert _chosen(CONV.with_sparsity("unstructured", 0.2)).patterns == ("dense",)
    assert _chosen(CONV.with_sparsity("filter", 0.0)).patterns == ("dense",)


def test_high_sparsity_is_skipped() -> None:
    assert "unstructured" in _chosen(CONV.with_sparsity("unstructured", 0.95)).patterns
    assert "unstructured" in _chosen(LINEAR.with_sparsity("unstructured", 0.95)).patterns


def test_whole_filters_are_compacted() -> None:
    for problem in (CONV, LINEAR):
        assert "_compact_" in _chosen(problem.with_sparsity("filter+channel", 0.5)).name


def test_kernels_that_skip_and_dense_ones_are_eligible() -> None:
    names = {kernel.name for kernel in eligible(CONV.with_sparsity("filter+shape", 0.75), MACHINE, REGISTRY)}
    assert {"conv2d_dense_f32_nhwc__onednn", "conv2d_compact_f32_nhwc__onednn", "conv2d_shape_f32_nchw__torch"} <= names
    assert not any("linear" in name or "bf16" in name for name in names)
    unstructured = {kernel.name for kernel in eligible(CONV.with_sparsity("unstructured", 0.9), MACHINE, REGISTRY)}
    assert not any("_compact_" in name or "_shape_" in name for name in unstructured)


def test_an_instruction_set_that_is_missing_rules_out_its_kernels() -> None:
    old = replace(MACHINE, isa=("baseline",))
    names = [kernel.name for kernel in eligible(CONV.with_sparsity("unstructured", 0.9), old, REGISTRY)]
    assert any(name.endswith("__baseline") for name in names)
    assert not any(name.endswith(("__avx2", "__avx512")) for name in names)


def test_kernels_of_blocked_layouts_are_no_candidates_but_run_by_name() -> None:
    problem = CONV.with_sparsity("unstructured", 0.9)
    names = {kernel.name for kernel in eligible(problem, MACHINE, REGISTRY)}
    assert {"conv2d_unstructured_f32_n16__avx512", "conv2d_unstructured_f32_n16_nhwc__avx512"} <= names
    blocked = kernel_named("conv2d_unstructured_f32_n16_n16chw__avx512")
    assert blocked.name not in names
    assert why_ineligible(blocked, problem, MACHINE) is None
    choice = select(problem, MACHINE, (blocked,))
    assert isinstance(choice, NoKernel)
    assert "n16chw" in choice.message


def test_no_kernel_says_why() -> None:
    for problem, machine, word in (
        (CONV.with_sparsity("sas:2:4", 0.5), MACHINE, "activations"),
        (CONV, Machine(isa=(), device="cuda"), "needs sm_80"),
    ):
        choice = select(problem, machine, REGISTRY)
        assert isinstance(choice, NoKernel)
        assert word in choice.message
        assert len(choice.reasons) == len(REGISTRY)
        assert all(reason for _, reason in choice.reasons)
    empty = select(CONV, MACHINE, ())
    assert isinstance(empty, NoKernel)
    assert "none is registered" in empty.message


def test_devices_do_not_mix() -> None:
    gpu = gpu_machine((9, 0), has_triton=True, has_cusparselt=False)
    for machine in (MACHINE, gpu):
        found = {kernel.device for kernel in eligible(LINEAR.with_sparsity("block:32x32", 0.75), machine, REGISTRY)}
        assert found == {machine.device}
    cpu_kernel = kernel_named("linear_dense_f32_nchw__torch")
    assert why_ineligible(cpu_kernel, LINEAR, gpu) == "runs on the CPU only, the machine is 'cuda'"
    gpu_kernel = kernel_named("linear_dense_f32_nchw__cublas")
    assert why_ineligible(gpu_kernel, LINEAR, MACHINE) == "runs on a CUDA GPU only, the machine is 'cpu'"


def test_on_a_gpu_sparse_tiles_beat_dense_ones_where_many_are_zero() -> None:
    gpu = gpu_machine((8, 0), has_triton=True, has_cusparselt=False)
    large = Problem(op="linear", n=4096, c_in=4096, c_out=4096, dtype="bfloat16")
    assert _chosen(large, gpu).patterns == ("dense",)
    assert _chosen(large.with_sparsity("block:64x64", 0.9), gpu).name == "linear_blocks_bf16_nchw__triton"
    assert _chosen(large.with_sparsity("block:64x64", 0.1), gpu).patterns == ("dense",)


def test_why_ineligible_names_the_first_obstacle() -> None:
    kernel = kernel_named("conv2d_compact_f32_nhwc__onednn")
    assert why_ineligible(kernel, LINEAR, MACHINE) == "runs conv2d, the problem is linear"
    assert "computes in float32" in str(why_ineligible(kernel, replace(CONV, dtype="bfloat16"), MACHINE))
    assert "the pattern is 'unstructured'" in str(
        why_ineligible(kernel, CONV.with_sparsity("unstructured", 0.5), MACHINE)
    )
    assert why_ineligible(kernel, CONV.with_sparsity("filter", 0.5), MACHINE) is None


def test_nominal_time_shrinks_with_threads_and_grows_on_weaker_machines() -> None:
    kernel = kernel_named("conv2d_dense_f32_nhwc__onednn")
    one = nominal_time_s(kernel, CONV, MACHINE)
    assert nominal_time_s(kernel, replace(CONV, threads=2), MACHINE) == pytest.approx(one / 2)
    assert nominal_time_s(kernel, CONV, replace(MACHINE, isa=("baseline", "avx2"))) > one
