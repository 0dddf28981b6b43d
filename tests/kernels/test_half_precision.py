"""Sparse convolution in half precision: the kernel's own text, its AVX512-FP16 instructions emulated where need be."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_agreement import windows_everywhere
from random_problems import Most, random_convolutions
from torch import Tensor

from sparseplan.kernels import _native
from sparseplan.kernels.conv2d_unstructured import flat_kernels
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.layout import is_in_layout
from sparseplan.kernels.native_layer import HALF_PRECISION
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import error_limit, reference, relative_error
from sparseplan.kernels.registry import REGISTRY, kernel_named
from sparseplan.kernels.reorder import to_layout
from sparseplan.kernels.spec import KernelSpec, Machine

pytestmark = pytest.mark.usefixtures("one_thread")

RUN_PRODUCTS = 32
"""Summed in half precision before they are widened; see kernels/native/flat/inner_half.inc.h."""
EMULATED = replace(HALF_PRECISION, name="avx512fp16_emulated")
HERE = detect_machine({})
RUNNABLE = [
    *(flat_kernels(EMULATED) if "avx512" in HERE.isa else ()),
    *(flat_kernels(HALF_PRECISION) if HALF_PRECISION.name in HERE.isa else ()),
]
ANY = Machine(isa=(EMULATED.name, HALF_PRECISION.name))
every_kernel = pytest.mark.parametrize("spec", RUNNABLE, ids=lambda spec: spec.name)


def conv(**sizes: object) -> Problem:
    given = {"op": "conv2d", "dtype": "float16", "pattern": "unstructured", "sparsity": 0.5, "n": 3} | sizes
    return Problem(**given)  # type: ignore[arg-type]


PROBLEMS = {
    "odd": conv(c_in=3, c_out=5, h_in=7, w_in=9, kernel=(3, 3), padding=(1, 1)),
    "wide rows": conv(c_in=2, c_out=35, h_in=3, w_in=500, kernel=(3, 3), padding=(1, 1)),
    "pointwise": conv(c_in=70, c_out=33, h_in=7, w_in=5),
    "unpadded": conv(c_in=4, c_out=3, h_in=11, w_in=13, kernel=(3, 3)),
    "strided": conv(c_in=4, c_out=5, h_in=19, w_in=22, kernel=(5, 4), stride=(2, 3), padding=(2, 1)),
    "strided dilated": conv(
        c_in=3, c_out=4, h_in=21, w_in=18, kernel=(3, 4), stride=(2, 3), padding=(1, 2), dilation=(3, 2)
    ),
    "grouped": conv(c_in=6, c_out=9, h_in=8, w_in=6, kernel=(3, 3), padding=(1, 1), groups=3),
    "one pixel": conv(c_in=37, c_out=19, h_in=1, w_in=1),
    "to one pixel": conv(c_in=5, c_out=18, h_in=4, w_in=3, kernel=(4, 3)),
    "channels in blocks": conv(c_in=200, c_out=40, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1)),
}


def half_layer(problem: Problem, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input, weight with random zeros, bias and residual; all are half-precision numbers."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(problem.weight_shape, generator=generator) >= problem.sparsity
    weight = torch.randn(problem.weight_shape, generator=generator).half().float() * keep
    x, residual = (torch.randn(s, generator=generator).half() for s in (problem.input_shape, problem.output_shape))
    return x, weight, torch.randn(problem.c_out, generator=generator), residual


def run(spec: KernelSpec, problem: Problem, layer: tuple[Tensor, Tensor, Tensor, Tensor], *, relu: bool) -> Tensor:
    """On scratch memory full of NaN."""
    x, weight, bias, residual = layer
    _native.fill_scratch(math.nan, torch.get_num_threads())
    packed = spec.pack(problem, weight, bias, relu)
    y = spec.run(packed, to_layout(x, spec.layout), to_layout(residual, spec.layout))
    assert y.dtype == torch.float16
    assert y.shape == problem.output_shape
    assert is_in_layout(y, spec.layout)
    return y


@every_kernel
@pytest.mark.parametrize("n", [1, 32, 35])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("relu", [False, True])
def test_agrees_with_float64(spec: KernelSpec, name: str, n: int, relu: bool) -> None:
    problem = replace(PROBLEMS[name], n=n)
    if spec.why_unsupported(problem, ANY):
        assert n < 32, "every batch that fills the vectors is supported"
        return
    x, weight, bias, residual = layer = half_layer(problem)
    y = run(spec, problem, layer, relu=relu)
    assert relative_error(y, reference(problem, weight, bias, relu, x, residual)) <= error_limit(problem)


@every_kernel
@pytest.mark.parametrize("name", ["odd", "strided", "strided dilated", "channels in blocks"])
def test_windows_agree(spec: KernelSpec, name: str) -> None:
    problem = replace(PROBLEMS[name], n=35)
    x, weight, bias, residual = layer = half_layer(problem)
    with windows_everywhere():
        y = run(spec, problem, layer, relu=True)
    assert relative_error(y, reference(problem, weight, bias, True, x, residual)) <= error_limit(problem)


def summed_in_runs(values: np.ndarray, x: np.ndarray, run_products: int, *, bias: float = 0.0) -> np.ndarray:
    """What the inner kernel computes of one row: runs of like length, each multiply-add rounded to half.

    Products of two halves are exact in float32. `values` is [products], `x` is [products, positions]; float16.
    """
    total = np.full(x.shape[1], bias, np.float32)
    runs = max(1, math.ceil(len(values) / run_products))
    length = math.ceil(len(values) / runs)
    for start in range(0, len(values), max(1, length)):
        run = np.zeros(x.shape[1], np.float16)
        for value, row in zip(values[start : start + length], x[start : start + length], strict=True):
            product = np.float32(value) * row.astype(np.float32)
            run = (run.astype(np.float32) + product).astype(np.float16)
        total += run.astype(np.float32)
    return total


@pytest.mark.parametrize("spec", [s for s in RUNNABLE if s.isa == EMULATED.name], ids=lambda spec: spec.name)
@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 63, 64, 65, 100])
def test_every_bit_of_short_runs(spec: KernelSpec, count: int) -> None:
    # Where nothing is expected to be left of the weight, channels are not cut into blocks, which end runs too.
    problem = conv(n=32, c_in=100, c_out=2, h_in=3, w_in=5, sparsity=1.0)
    x, weight, bias, _ = half_layer(replace(problem, sparsity=0.0), seed=count)
    weight[:, count:] = 0.0
    packed = spec.pack(problem, weight, bias, False)
    y = spec.run(packed, to_layout(x, spec.layout))
    rows = x.permute(1, 0, 2, 3).reshape(100, -1)[:count].numpy()
    for k in range(2):
        values = weight[k, :count, 0, 0].half().numpy()
        row = summed_in_runs(values, rows, RUN_PRODUCTS, bias=float(bias[k]))
        assert torch.equal(y[:, k], torch.from_numpy(row.astype(np.float16)).view(32, 3, 5))


def test_the_limit_tells_short_runs_from_long_ones() -> None:
    """Sums of 4608 products: within the limit where runs are short, beyond it where all are summed in half."""
    problem = conv(c_in=512, c_out=1, h_in=3, w_in=3, kernel=(3, 3))
    generator = np.random.default_rng(0)
    values = generator.normal(size=4608).astype(np.float16)
    x = generator.normal(size=(4608, 500)).astype(np.float16)
    exact = torch.from_numpy(values.astype(np.float64) @ x.astype(np.float64))

    def error(run_products: int) -> float:
        rounded = summed_in_runs(values, x, run_products).astype(np.float16)
        return relative_error(torch.from_numpy(rounded), exact)

    assert error(RUN_PRODUCTS) <= 0.6 * error_limit(problem)
    assert error(4608) > 2.0 * error_limit(problem)


@every_kernel
def test_long_sums_stay_within_the_limit(spec: KernelSpec) -> None:
    problem = conv(n=32, c_in=512, c_out=6, h_in=6, w_in=6, kernel=(3, 3), padding=(1, 1), sparsity=0.0)
    x, weight, bias, residual = layer = half_layer(problem)
    y = run(spec, problem, layer, relu=False)
    assert relative_error(y, reference(problem, weight, bias, False, x, residual)) <= 0.6 * error_limit(problem)


@every_kernel
def test_threads_change_no_bit(spec: KernelSpec) -> None:
    problem = replace(PROBLEMS["channels in blocks"], n=35)
    layer = half_layer(problem)
    one = run(spec, problem, layer, relu=True)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(run(spec, problem, layer, relu=True), one)


@every_kernel
def test_small_weights_vanish_and_large_sums_overflow_as_in_half(spec: KernelSpec) -> None:
    problem = conv(n=32, c_in=2, c_out=2, h_in=4, w_in=4)
    x, weight = torch.full(problem.input_shape, 256.0).half(), torch.zeros(problem.weight_shape)
    weight[0, 0], weight[0, 1], weight[1] = 1e-9, 2.0**-24, 512.0
    packed = spec.pack(problem, weight, None, False)
    assert packed.native.nonzeros == 3
    y = spec.run(packed, to_layout(x, spec.layout))
    assert torch.equal(y[:, 0], torch.full((32, 4, 4), 2.0**-16).half())
    assert bool(y[:, 1].isinf().all())


@every_kernel
def test_foreign_tensors_are_refused(spec: KernelSpec) -> None:
    problem = conv(n=32, c_in=4, c_out=3, h_in=5, w_in=6, kernel=(3, 3))
    x, weight, bias, residual = half_layer(problem)
    packed = spec.pack(problem, weight, bias, False)
    for wrong in (x.float(), x[:31], x.bfloat16()):
        with pytest.raises(InputError, match=r"input is .* needs torch\.float16"):
            spec.run(packed, wrong)
    with pytest.raises(InputError, match=r"residual is torch\.float32"):
        spec.run(packed, x, to_layout(residual.float(), spec.layout))


def test_the_emulation_is_no_instruction_set() -> None:
    assert EMULATED.name not in _native.isa_list()
    assert not any("emulated" in kernel.name for kernel in REGISTRY)
    real = kernel_named("conv2d_unstructured_f16_n32__avx512fp16")
    problem = conv(n=32, c_in=4, c_out=3, h_in=5, w_in=6)
    for spec in (real, *flat_kernels(EMULATED)):
        assert "needs avx512fp16" in (spec.why_unsupported(problem, Machine(isa=("baseline", "avx512"))) or "")
    assert real.why_unsupported(problem, Machine(isa=("avx512fp16",))) is None
    assert "float16" in (real.why_unsupported(replace(problem, dtype="float32"), Machine(isa=("avx512fp16",))) or "")
    assert "32 lanes" in (real.why_unsupported(replace(problem, n=15), Machine(isa=("avx512fp16",))) or "")


def test_cost_halves_the_bytes() -> None:
    problem = conv(n=32, c_in=64, c_out=64, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1), sparsity=0.8)
    half = kernel_named("conv2d_unstructured_f16_n32__avx512fp16").cost(problem)
    single = kernel_named("conv2d_unstructured_f32_n16__avx512").cost(replace(problem, dtype="float32"))
    assert half.unit == "fma_f16"
    assert half.flop == single.flop
    assert 0.5 < half.bytes_moved / single.bytes_moved < 0.6
    assert 0.5 < half.bytes_streamed / single.bytes_streamed < 0.7


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_agrees_on_random_problems(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    some = data.draw(
        random_convolutions(
            n=st.sampled_from([1, 2, 32, 33]),
            channels=st.integers(1, 40),
            outputs=st.integers(1, 20),
            groups=st.integers(1, 2),
            most=Most(rows=8, columns=39),
        )
    )
    sparsity = data.draw(st.sampled_from([0.0, 0.3, 0.8, 1.0]))
    problem = replace(some, dtype="float16", pattern="unstructured", sparsity=sparsity)
    x, weight, bias, residual = layer = half_layer(problem, seed=draw(0, 1000))
    expected = reference(problem, weight, bias, True, x, residual)
    for spec in RUNNABLE:
        if spec.why_unsupported(problem, ANY) is None:
            assert relative_error(run(spec, problem, layer, relu=True), expected) <= error_limit(problem)
