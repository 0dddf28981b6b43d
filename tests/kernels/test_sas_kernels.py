"""SAS kernels: random problems, signs and zeros, residuals, threads, what they refuse, what they cost."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import Most, random_convolutions
from torch import Tensor

from sparseplan.kernels import _native, sas_select, sas_wide
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.dense import MEMORY_FORMATS, TORCH_DTYPES
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import error_limit, reference, relative_error
from sparseplan.kernels.sas import widen_weight
from sparseplan.kernels.select import eligible
from sparseplan.kernels.spec import KernelSpec, Machine

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = detect_machine({})
KERNELS = (*sas_select.KERNELS, *sas_wide.KERNELS)
RUNNABLE = [
    kernel
    for kernel in KERNELS
    if kernel.isa in ("any", *MACHINE.isa) and (MACHINE.torch_ops or "torch" in kernel.name)
]
SELECT = [kernel for kernel in RUNNABLE if "_select" in kernel.name]
EVERYTHING = Machine(isa=("baseline", "avx2", "avx512"), torch_ops=MACHINE.torch_ops)
every_kernel = pytest.mark.parametrize("kernel", RUNNABLE, ids=lambda kernel: kernel.name)
every_select = pytest.mark.parametrize("kernel", SELECT, ids=lambda kernel: kernel.name)


def small(kernel: KernelSpec, m: int = 4) -> Problem:
    sizes = {"h_in": 7, "w_in": 6, "kernel": (3, 3), "padding": (1, 1)} if kernel.op == "conv2d" else {}
    problem = Problem(op=kernel.op, n=3, c_in=11, c_out=37, dtype=kernel.dtype, **sizes)
    return problem.with_sparsity(f"sas:1:{m}", 0.0)


def tensors(problem: Problem, kernel: KernelSpec, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Input with zeros of both signs, wide weight, and bias, as numbers of the problem's dtype."""
    generator = torch.Generator().manual_seed(seed)
    dtype = TORCH_DTYPES[problem.dtype]
    x = torch.randn(problem.input_shape, generator=generator).to(dtype)
    chosen = torch.rand(x.shape, generator=generator)
    x[chosen < 0.1], x[chosen > 0.9] = 0.0, -0.0
    if problem.op == "conv2d":
        x = x.contiguous(memory_format=MEMORY_FORMATS[kernel.layout])
    weight, bias = (
        torch.randn(shape, generator=generator).to(dtype).float() for shape in (problem.weight_shape, problem.c_out)
    )
    return x, weight, bias


@every_kernel
@pytest.mark.parametrize("m", [2, 4, 16])
@pytest.mark.parametrize("relu", [False, True])
def test_residual_is_added_before_the_relu(kernel: KernelSpec, m: int, relu: bool) -> None:
    problem = small(kernel, m)
    x, weight, bias = tensors(problem, kernel)
    plain = reference(problem, weight, bias, False, x)
    residual = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    if problem.op == "conv2d":
        residual = residual.contiguous(memory_format=MEMORY_FORMATS[kernel.layout])
    expected = plain + residual.double()
    packed = kernel.pack(problem, weight, bias, relu)
    y = kernel.run(packed, x, residual)
    assert relative_error(y, expected.relu() if relu else expected) <= error_limit(problem)
    without = kernel.run(packed, x)
    assert relative_error(without, plain.relu() if relu else plain) <= error_limit(problem)


@every_kernel
def test_a_widened_relu_layer_is_that_layer(kernel: KernelSpec) -> None:
    """Exactly: the added products are zeros, and the order of the others is the same for both inputs."""
    problem = small(kernel, 2)
    x, _, bias = tensors(problem, kernel)
    weight = torch.randn(problem.as_dense().weight_shape, generator=torch.Generator().manual_seed(1))
    packed = kernel.pack(problem, widen_weight(weight, 2).to(x.dtype).float(), bias, False)
    assert torch.equal(kernel.run(packed, x), kernel.run(packed, x.relu()))


@every_select
@pytest.mark.parametrize("sizes", [(3, 40, 70), (1, 300, 130), (40, 24, 600)])
def test_threads_change_no_bit(kernel: KernelSpec, sizes: tuple[int, int, int]) -> None:
    n, c_in, c_out = sizes
    problem = replace(small(kernel, 2), n=n, c_in=c_in, c_out=c_out)
    x, weight, bias = tensors(problem, kernel)
    packed = kernel.pack(problem, weight, bias, False)
    one = kernel.run(packed, x)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        _native.fill_scratch(float("nan"), threads)
        assert torch.equal(kernel.run(packed, x), one)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    some=random_convolutions(
        n=st.integers(1, 5),
        channels=st.integers(1, 40),
        outputs=st.integers(1, 70),
        groups=st.sampled_from([1, 1, 2, 3]),
        most=Most(padding=4, rows=11, columns=11),
    ),
    m=st.sampled_from([2, 4, 8]),
    seed=st.integers(0, 1000),
)
def test_random_convolutions(some: Problem, m: int, seed: int) -> None:
    problem = some.with_sparsity(f"sas:1:{m}", 0.0)
    for spec in eligible(problem, MACHINE, SELECT):
        x, weight, bias = tensors(problem, spec, seed=seed)
        _native.fill_scratch(float("nan"), 1)
        y = spec.run(spec.pack(problem, weight, bias, True), x)
        assert relative_error(y, reference(problem, weight, bias, True, x)) <= error_limit(problem)


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(
    n=st.integers(1, 300),
    c_in=st.integers(1, 90),
    c_out=st.integers(1, 500),
    m=st.sampled_from([2, 4, 8]),
    threads=st.integers(1, 3),
)
def test_random_linears(n: int, c_in: int, c_out: int, m: int, threads: int) -> None:
    problem = Problem(op="linear", n=n, c_in=c_in, c_out=c_out, threads=threads).with_sparsity(f"sas:1:{m}", 0.0)
    torch.set_num_threads(threads)
    for spec in eligible(problem, MACHINE, SELECT):
        x, weight, bias = tensors(problem, spec)
        y = spec.run(spec.pack(problem, weight, bias, False), x)
        assert relative_error(y, reference(problem, weight, bias, False, x)) <= error_limit(problem)


@every_kernel
def test_refuses_foreign_tensors(kernel: KernelSpec) -> None:
    problem = small(kernel)
    x, weight, bias = tensors(problem, kernel)
    for wrong in (weight[:, :3], weight[:3]):
        with pytest.raises(InputError, match="weight is"):
            kernel.pack(problem, wrong, bias, False)
    packed = kernel.pack(problem, weight, bias, False)
    for wrong in (x[:1], x[:, :7], x.double(), x[0]):
        with pytest.raises(InputError, match="input is"):
            kernel.run(packed, wrong)
    with pytest.raises(InputError, match="residual is"):
        kernel.run(packed, x, torch.zeros(2, dtype=x.dtype))


def test_native_guards_memory() -> None:
    expansion = _native.SasExpansion(pixels=2, groups=1, channels=3, bits=1, value_bytes=4)
    with pytest.raises(ValueError, match="expansion"):
        expansion.run(0, 20, 1)
    with pytest.raises(ValueError, match="2 or 4 bytes"):
        _native.SasExpansion(pixels=2, groups=1, channels=3, bits=1, value_bytes=8)
    kernel = SELECT[0]
    x, weight, bias = tensors(small(kernel), kernel)
    native = kernel.pack(small(kernel), weight, bias, False).native
    with pytest.raises(ValueError, match="differs from the packed problem"):
        native.run(x.data_ptr(), x.nbytes - 4, 0, x.data_ptr(), x.nbytes, 1)


def test_reasons_name_what_is_missing() -> None:
    conv = next(kernel for kernel in KERNELS if kernel.name == "conv2d_sas_f32_select_nhwc__avx512")
    problem = small(conv)
    assert conv.why_unsupported(problem, EVERYTHING) is None
    assert "avx512" in str(conv.why_unsupported(problem, replace(EVERYTHING, isa=("baseline",))))
    for kernel in KERNELS:
        sized = replace(small(kernel), dtype=kernel.dtype)
        assert "alone" in str(kernel.why_unsupported(sized.with_sparsity("filter+sas:1:2", 0.6), EVERYTHING))
        for pattern in ("sas:2:4", "sas:1:3"):
            assert "power of two" in str(kernel.why_unsupported(sized.with_sparsity(pattern, 0.0), EVERYTHING))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_cost_by_hand(kernel: KernelSpec) -> None:
    problem = replace(small(kernel, 2), c_in=32, c_out=64)
    cost = kernel.cost(problem)
    if "_select" in kernel.name:
        # A load for each multiply-add of a vector, and less than half as much for slots, values and sums.
        assert cost.flop == problem.flop_useful
        assert 2.0 * cost.flop <= cost.bytes_streamed <= 3.0 * cost.flop
    else:
        assert cost.flop == problem.flop_dense_equiv
        moved = 4 * problem.input_bytes + problem.weight_bytes + problem.output_bytes
        assert cost.bytes_moved + cost.bytes_copied >= moved + problem.input_bytes


def test_one_pixel_reads_only_the_rows_it_chooses() -> None:
    linear = next(kernel for kernel in KERNELS if kernel.name == "linear_sas_f32_select__avx512")
    one = Problem(op="linear", n=1, c_in=512, c_out=512).with_sparsity("sas:1:4", 0.0)
    read = [linear.cost(replace(one, n=n)).bytes_moved for n in (1, 64)]
    assert read[0] < 0.3 * one.weight_bytes
    assert one.weight_bytes < read[1]
