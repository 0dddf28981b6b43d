"""Sparse linear layers against float64, in every instruction set and format that this machine can run."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_agreement import assert_agrees, random_layer

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.linear_unstructured import KERNELS
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.spec import KernelSpec, Machine

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = detect_machine({})
RUNNABLE = [spec for spec in KERNELS if spec.isa in MACHINE.isa]
every_kernel = pytest.mark.parametrize("spec", RUNNABLE, ids=lambda spec: spec.name)


def linear(n: int, c_in: int, c_out: int, sparsity: float = 0.7) -> Problem:
    return Problem(op="linear", n=n, c_in=c_in, c_out=c_out, pattern="unstructured", sparsity=sparsity)


@every_kernel
@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 17, 33, 450])
@pytest.mark.parametrize(("c_in", "c_out"), [(1, 1), (5, 3), (37, 19), (64, 48), (33, 130)])
def test_agrees_with_float64(spec: KernelSpec, n: int, c_in: int, c_out: int) -> None:
    problem = linear(n, c_in, c_out)
    if spec.why_unsupported(problem, MACHINE) is not None:
        assert n < 8, "every batch that fills half of the vectors is supported"
        return
    assert_agrees(spec, problem, *random_layer(problem))


@every_kernel
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_bias_and_relu_at_every_density(spec: KernelSpec, sparsity: float, relu: bool, has_bias: bool) -> None:
    problem = linear(19, 40, 35, sparsity)
    x, weight, bias = random_layer(problem)
    y = assert_agrees(spec, problem, x, weight, bias if has_bias else None, relu=relu)
    if relu:
        assert y.min() >= 0.0


@every_kernel
def test_rows_of_unequal_length(spec: KernelSpec) -> None:
    problem = linear(18, 50, 41)
    x, weight, bias = random_layer(problem)
    weight[::3] = 0.0
    weight[1, 1:] = 0.0
    weight[5] = torch.randn(50, 1, 1, generator=torch.Generator().manual_seed(1))
    assert_agrees(spec, problem, x, weight, bias)


@pytest.mark.parametrize("spec", [spec for spec in RUNNABLE if "_sell_" in spec.name], ids=lambda spec: spec.name)
def test_sorted_rows_need_little_padding(spec: KernelSpec) -> None:
    weight = torch.ones(64, 64, 1, 1)
    for k in range(64):
        weight[k, (k * 37) % 64 + 1 :] = 0.0
    nonzeros = int(torch.count_nonzero(weight))
    assert nonzeros <= spec.pack(linear(1, 64, 64), weight, None, False).native.stored <= 1.25 * nonzeros


@every_kernel
def test_many_inputs_are_summed_in_blocks(spec: KernelSpec) -> None:
    problem = linear(130, 5000, 20, sparsity=0.5)
    assert_agrees(spec, problem, *random_layer(problem), relu=True)


@every_kernel
@pytest.mark.parametrize("n", [16, 33])
def test_threads_change_no_bit(spec: KernelSpec, n: int) -> None:
    problem = linear(n, 70, 90)
    x, weight, bias = random_layer(problem)
    packed = spec.pack(problem, weight, bias, False)
    one = spec.run(packed, x)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(spec.run(packed, x), one)


@every_kernel
def test_refuses_foreign_tensors(spec: KernelSpec) -> None:
    problem = linear(16, 8, 6)
    x, weight, bias = random_layer(problem)
    for wrong in (weight[:, :3], weight.double(), weight[:, :, 0, 0]):
        with pytest.raises(InputError, match="weight is"):
            spec.pack(problem, wrong, bias, False)
    with pytest.raises(InputError, match="bias is"):
        spec.pack(problem, weight, bias[:2], False)
    packed = spec.pack(problem, weight, bias, False)
    for wrong in (x[:15], x[:, :7], x.double(), x[:, :, None, None]):
        with pytest.raises(InputError, match="input is"):
            spec.run(packed, wrong)


def test_reasons_name_what_is_missing() -> None:
    everything = Machine(isa=("baseline", "avx2", "avx512"))
    sell = next(spec for spec in KERNELS if spec.name == "linear_unstructured_f32_sell__avx512")
    interleaved = next(spec for spec in KERNELS if spec.name == "linear_unstructured_f32_n8__avx2")
    assert sell.why_unsupported(linear(1, 8, 8), everything) is None
    assert interleaved.why_unsupported(linear(4, 8, 8), everything) is None
    assert "8 lanes" in (interleaved.why_unsupported(linear(3, 8, 8), everything) or "")
    assert "65536" in (sell.why_unsupported(linear(1, 65537, 1), everything) or "")
    assert "avx512" in (sell.why_unsupported(linear(1, 8, 8), Machine(isa=("baseline", "avx2"))) or "")
    assert "nothing to skip" in (sell.why_unsupported(linear(1, 8, 8).as_dense(), everything) or "")


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_cost_counts_what_runs(spec: KernelSpec) -> None:
    problem = linear(64, 1024, 1000)
    costs = [spec.cost(problem.with_sparsity("unstructured", sparsity / 100)) for sparsity in range(101)]
    for sparsity, cost in enumerate(costs):
        useful = problem.flop_dense_equiv * (1.0 - sparsity / 100)
        assert useful * (1 - 1e-9) <= cost.flop <= 1.1 * useful + 1.0
        assert cost.bytes_moved >= problem.input_bytes + problem.output_bytes
        assert cost.tasks >= 1
    streamed = [cost.bytes_streamed for cost in costs]
    steps = [before - after for before, after in pairwise(streamed)]
    assert min(steps) > 0.0, "sparser is never more"
    assert max(steps) < 0.04 * streamed[0], "no jumps"


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    n=st.integers(1, 70),
    c_in=st.integers(1, 90),
    c_out=st.integers(1, 90),
    sparsity=st.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]),
    seed=st.integers(0, 1000),
)
def test_agrees_on_random_problems(n: int, c_in: int, c_out: int, sparsity: float, seed: int) -> None:
    problem = linear(n, c_in, c_out, sparsity)
    x, weight, bias = random_layer(problem, seed=seed)
    for spec in RUNNABLE:
        if spec.why_unsupported(problem, MACHINE) is None:
            assert_agrees(spec, problem, x, weight, bias)
