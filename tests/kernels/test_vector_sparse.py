"""Vector-sparse kernels in every arithmetic: layouts, bands, blocks in pieces, residuals, threads, refused inputs."""

import ctypes
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import Most, random_convolutions
from torch import Tensor

from sparseplan.kernels import _native, vector_shape
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.dense import TORCH_DTYPES
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.inputs import LayerInputs, random_inputs
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import error_limit, reference, relative_error
from sparseplan.kernels.reference_int8 import reference_int8
from sparseplan.kernels.reorder import to_layout
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.kernels.vector_shape import VectorSet
from sparseplan.kernels.vector_sparse import KERNELS, VECTOR_SETS

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = detect_machine({})
RUNNABLE = [spec for spec in KERNELS if spec.isa in MACHINE.isa]
CONVOLUTIONS = [spec for spec in RUNNABLE if spec.op == "conv2d"]
every_kernel = pytest.mark.parametrize("spec", RUNNABLE, ids=lambda spec: spec.name)
every_convolution = pytest.mark.parametrize("spec", CONVOLUTIONS, ids=lambda spec: spec.name)
GUARD_BYTES = 4096


def conv(**sizes: object) -> Problem:
    return Problem(**({"op": "conv2d", "pattern": "block:16x1", "sparsity": 0.6, "n": 2} | sizes))  # type: ignore[arg-type]


PADDED = conv(n=3, c_in=10, c_out=37, h_in=9, w_in=11, kernel=(3, 3), padding=(1, 1))
STRIDED = conv(n=3, c_in=7, c_out=20, h_in=13, w_in=18, kernel=(4, 3), stride=(2, 3), padding=(2, 1), dilation=(1, 2))
POINTWISE = conv(n=3, c_in=24, c_out=35, h_in=7, w_in=5)
PROBLEMS = {
    "padded": PADDED,
    "strided": STRIDED,
    "pointwise": POINTWISE,
    "pointwise strided in place": conv(c_in=16, c_out=32, h_in=9, w_in=21, stride=(2, 2)),
    "pointwise beyond level 1": conv(c_in=1100, c_out=16, h_in=6, w_in=6),
    "pointwise of much reuse": conv(c_in=12, c_out=200, h_in=5, w_in=9, sparsity=0.25),
    "groups in place": conv(c_in=24, c_out=18, h_in=5, w_in=8, groups=3),
    "groups copied": conv(c_in=15, c_out=33, h_in=6, w_in=9, kernel=(3, 3), padding=(1, 1), groups=3),
    "depth-wise": conv(c_in=19, c_out=38, h_in=8, w_in=7, kernel=(3, 3), stride=(2, 2), padding=(1, 1), groups=19),
    "narrow": conv(c_in=5, c_out=16, h_in=12, w_in=1, kernel=(3, 1), padding=(1, 0)),
    "one pixel an image": conv(n=5, c_in=6, c_out=17, h_in=3, w_in=4, kernel=(3, 4)),
    "phases that no tap reads": conv(c_in=6, c_out=16, h_in=14, w_in=17, kernel=(2, 2), stride=(4, 5), padding=(1, 0)),
    "padding beyond the image": conv(c_in=3, c_out=9, h_in=3, w_in=2, kernel=(1, 1), padding=(3, 4)),
}


def inputs_for(spec: KernelSpec, problem: Problem, *, seed: int = 0, weight: Tensor | None = None) -> LayerInputs:
    generator = torch.Generator().manual_seed(seed)
    if weight is None:
        weight = torch.randn(problem.weight_shape, generator=generator)
        weight = weight * magnitude_mask(weight, parse_pattern(problem.pattern), problem.sparsity)
    return random_inputs(replace(problem, dtype=spec.dtype), weight, generator)


def random_residual(problem: Problem, *, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if problem.dtype == "int8":
        return to_layout(torch.randint(0, 256, problem.output_shape, generator=generator).to(torch.uint8), "nhwc")
    return to_layout(torch.randn(problem.output_shape, generator=generator).to(TORCH_DTYPES[problem.dtype]), "nhwc")


def expected_with(inputs: LayerInputs, residual: Tensor | None) -> Tensor:
    if residual is None:
        return inputs.expected()
    problem, weight, bias, relu, x = inputs.problem, inputs.weight, inputs.bias, inputs.relu, inputs.x
    if inputs.quantisation is not None:
        quantisation = inputs.quantisation
        return reference_int8(problem, weight, bias, relu, x, quantisation=quantisation, residual=residual).double()
    y = reference(problem, weight, bias, False, x) + residual.double()
    return y.clamp(min=0.0) if relu else y


def assert_right(spec: KernelSpec, inputs: LayerInputs, *, residual: Tensor | None = None) -> Tensor:
    _native.fill_scratch(math.nan, torch.get_num_threads())
    y = spec.run(inputs.pack(spec), inputs.x_for(spec), residual)
    assert y.shape == inputs.problem.output_shape
    error = relative_error(y, expected_with(inputs, residual))
    assert error <= error_limit(inputs.problem), f"{spec.name}: {error:.2e}"
    return y


@every_convolution
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("has_residual", [False, True])
def test_layouts(spec: KernelSpec, name: str, has_residual: bool) -> None:
    inputs = inputs_for(spec, PROBLEMS[name])
    assert_right(spec, inputs, residual=random_residual(inputs.problem) if has_residual else None)


@pytest.mark.parametrize("vectors", VECTOR_SETS, ids=lambda vectors: vectors.isa)
def test_pointwise_input_is_copied_where_shared_loads_repay_it(vectors: VectorSet) -> None:
    """`COPY_REUSE` multiply-adds a word are 8 blocks of 16 lanes without zeros, or 16 with half of them."""
    sizes = {"c_in": 64, "h_in": 9, "w_in": 9, "dtype": vectors.dtype}
    for c_out, sparsity, repays in ((112, 0.0, False), (128, 0.0, True), (128, 0.5, False), (256, 0.5, True)):
        problem = conv(c_out=c_out * vectors.lanes // 16, sparsity=sparsity, **sizes)
        shape = vector_shape.vector_shape(problem, vectors)
        assert shape.copies_input == (repays and vectors.shares_loads)


@every_convolution
@pytest.mark.parametrize("budget", [1, 1200, 3000, 9000])
@pytest.mark.parametrize("name", ["padded", "strided", "pointwise", "groups copied", "pointwise beyond level 1"])
def test_bands(spec: KernelSpec, name: str, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images, rows and parts of rows in turn, as the copy of a band may be large or small."""
    monkeypatch.setattr(vector_shape, "COPY_BYTES", budget)
    monkeypatch.setattr(vector_shape, "PLACE_BYTES", budget)
    inputs = inputs_for(spec, replace(PROBLEMS[name], n=5))
    assert_right(spec, inputs)


@every_convolution
@pytest.mark.parametrize("pattern", ["filter", "channel", "shape", "filter2d", "filter+shape", "block:16x64", "dense"])
@pytest.mark.parametrize("has_residual", [False, True])
def test_patterns(spec: KernelSpec, pattern: str, has_residual: bool) -> None:
    problem = conv(n=2, c_in=20, c_out=90, h_in=6, w_in=7, kernel=(3, 3), padding=(1, 1)).with_sparsity(
        pattern, 0.0 if pattern == "dense" else 0.5
    )
    inputs = inputs_for(spec, problem)
    assert_right(spec, inputs, residual=random_residual(inputs.problem) if has_residual else None)


@every_kernel
@pytest.mark.parametrize("alive", [(), (0,), (49,), (3, 4, 40), tuple(range(16)), tuple(range(1, 50, 2))])
def test_removed_filters(spec: KernelSpec, alive: tuple[int, ...]) -> None:
    """What is left gives the right values, what is removed its bias, wherever the survivors lie."""
    problem = (
        conv(n=2, c_in=8, c_out=50, h_in=5, w_in=6)
        if spec.op == "conv2d"
        else Problem(op="linear", n=9, c_in=8, c_out=50)
    )
    weight = torch.zeros(problem.weight_shape)
    weight[list(alive)] = torch.randn(len(alive), *problem.weight_shape[1:], generator=torch.Generator().manual_seed(2))
    inputs = inputs_for(spec, problem, weight=weight)
    for residual in (None, random_residual(inputs.problem)):
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert_right(spec, inputs, residual=residual)


@every_convolution
@pytest.mark.parametrize("name", ["padded", "strided", "pointwise", "groups copied"])
def test_threads_change_no_bit(spec: KernelSpec, name: str) -> None:
    for n in (1, 3, 8):
        inputs = inputs_for(spec, replace(PROBLEMS[name], n=n))
        packed, x = inputs.pack(spec), inputs.x_for(spec)
        one = spec.run(packed, x)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(spec.run(packed, x), one)
        torch.set_num_threads(1)


@every_kernel
def test_entries_are_the_blocks_that_are_left(spec: KernelSpec) -> None:
    vectors = next(v for v in VECTOR_SETS if (v.isa, v.dtype) == (spec.isa, spec.dtype))
    sizes = {"n": 2, "c_in": 32, "c_out": 3 * vectors.lanes}
    image = {"h_in": 5, "w_in": 5, "kernel": (3, 3), "padding": (1, 1)} if spec.op == "conv2d" else {}
    pattern = f"block:{vectors.lanes}x{vectors.word_channels}"
    problem = Problem(op=spec.op, pattern=pattern, sparsity=0.75, **sizes, **image)  # type: ignore[arg-type]
    inputs = inputs_for(spec, problem)
    words = inputs.weight.unflatten(0, (3, vectors.lanes)).unflatten(2, (-1, vectors.word_channels))
    assert inputs.pack(spec).native.entries == torch.count_nonzero(words.abs().amax(dim=(1, 3)))


@every_kernel
def test_writes_nothing_outside_the_output(spec: KernelSpec) -> None:
    problem = conv(n=2, c_in=8, c_out=37, h_in=5, w_in=6, kernel=(3, 3), padding=(1, 1))
    if spec.op == "linear":
        problem = Problem(op="linear", n=11, c_in=8, c_out=37)
    weight = torch.randn(problem.weight_shape, generator=torch.Generator().manual_seed(3))
    weight[5:30:3] = 0.0
    inputs = inputs_for(spec, problem, weight=weight)
    x, native = inputs.x_for(spec), inputs.pack(spec).native
    expected = spec.run(inputs.pack(spec), x)
    guarded = torch.full((2 * GUARD_BYTES + expected.nbytes,), 0xA5, dtype=torch.uint8)
    for threads in (1, 3):
        guarded[GUARD_BYTES : GUARD_BYTES + expected.nbytes] = 0
        native.run(x.data_ptr(), x.nbytes, 0, guarded.data_ptr() + GUARD_BYTES, expected.nbytes, threads)
        inside = guarded[GUARD_BYTES : GUARD_BYTES + expected.nbytes]
        assert bytes(inside.numpy()) == ctypes.string_at(expected.data_ptr(), expected.nbytes)
        assert (guarded[:GUARD_BYTES] == 0xA5).all()
        assert (guarded[GUARD_BYTES + expected.nbytes :] == 0xA5).all()


@every_convolution
def test_nan_stays_where_it_belongs(spec: KernelSpec) -> None:
    if spec.dtype == "int8":
        pytest.skip("bytes hold no NaN")
    inputs = inputs_for(spec, conv(c_in=4, c_out=16, h_in=6, w_in=6, kernel=(3, 3), padding=(1, 1)).as_dense())
    inputs.x[1, 0, 0, 0] = math.nan
    y = spec.run(inputs.pack(spec), inputs.x_for(spec))
    poisoned = torch.zeros(inputs.problem.output_shape, dtype=torch.bool)
    poisoned[1, :, :2, :2] = True
    assert torch.equal(y.isnan(), poisoned)


@every_convolution
def test_takes_any_memory_order(spec: KernelSpec) -> None:
    inputs = inputs_for(spec, PADDED)
    packed, residual = inputs.pack(spec), random_residual(inputs.problem)
    assert torch.equal(spec.run(packed, inputs.x, residual), spec.run(packed, inputs.x_for(spec), residual))


@every_kernel
def test_refuses_foreign_tensors(spec: KernelSpec) -> None:
    problem = replace(
        POINTWISE if spec.op == "conv2d" else Problem(op="linear", n=4, c_in=24, c_out=35), dtype=spec.dtype
    )
    inputs = inputs_for(spec, problem)
    for wrong in (inputs.weight[:, :3], inputs.weight.double(), inputs.weight[:4]):
        with pytest.raises(InputError, match="weight is"):
            replace(inputs, weight=wrong).pack(spec)
    assert inputs.bias is not None
    with pytest.raises(InputError, match="bias is"):
        replace(inputs, bias=inputs.bias[:2]).pack(spec)
    packed = inputs.pack(spec)
    for wrong_x in (inputs.x[:1], inputs.x[:, :5], inputs.x.double(), inputs.x[0]):
        with pytest.raises(InputError, match="input is"):
            spec.run(packed, wrong_x)
    with pytest.raises(InputError, match="residual is"):
        spec.run(packed, inputs.x, random_residual(inputs.problem)[:1])
    if spec.dtype == "int8":
        with pytest.raises(InputError, match="quantisation"):
            spec.pack(problem, inputs.weight, inputs.bias, True)


def test_native_refuses_shapes_that_leave_memory() -> None:
    spec = CONVOLUTIONS[-1]
    inputs = inputs_for(spec, PADDED)
    with pytest.raises(ValueError, match="differs from the packed problem"):
        inputs.pack(spec).native.run(0, 4, 0, 0, 4, 1)


def test_reasons_name_what_is_missing() -> None:
    spec = next(spec for spec in KERNELS if spec.name == "conv2d_vector_f32_nhwc__avx512")
    everything = Machine(isa=("baseline", "avx2", "avx512", "avx512vnni", "avx512bf16"))
    assert spec.why_unsupported(PADDED, everything) is None
    assert "avx512" in (spec.why_unsupported(PADDED, Machine(isa=("baseline",))) or "")
    assert "float32" in (spec.why_unsupported(replace(PADDED, dtype="bfloat16"), everything) or "")
    assert "linear" in (spec.why_unsupported(Problem(op="linear", n=1, c_in=8, c_out=8), everything) or "")
    assert "sas" in (spec.why_unsupported(PADDED.with_sparsity("sas:1:2", 0.0), everything) or "")
    huge = conv(n=1, c_in=64, c_out=16, h_in=4096, w_in=4096, stride=(2, 2))
    assert "exceeds" in (spec.why_unsupported(huge, everything) or "")
    quantised = next(spec for spec in KERNELS if spec.name == "linear_vector_i8_nhwc__avx512vnni")
    wide = Problem(op="linear", n=1, c_in=40000, c_out=8, dtype="int8")
    assert "overflow" in (quantised.why_unsupported(wide, everything) or "")


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_cost_falls_with_sparsity(spec: KernelSpec) -> None:
    problem = Problem(op="linear", n=32, c_in=128, c_out=256, dtype=spec.dtype)
    if spec.op == "conv2d":
        problem = conv(n=2, c_in=64, c_out=64, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1), dtype=spec.dtype)
    costs = [spec.cost(problem.with_sparsity("block:16x16", sparsity / 10)) for sparsity in range(10)]
    for sparsity, cost in enumerate(costs):
        useful = problem.flop_dense_equiv * (1.0 - sparsity / 10)
        assert useful * (1 - 1e-9) <= cost.flop <= 1.3 * useful + 1.0
    assert all(a.bytes_streamed > b.bytes_streamed for a, b in pairwise(costs))


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_random_problems(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    channels, most = st.integers(1, 20), Most(rows=12, columns=30)
    some = data.draw(random_convolutions(n=st.integers(1, 5), channels=channels, outputs=channels, most=most))
    pattern = data.draw(st.sampled_from(["block:4x1", "filter", "shape", "unstructured"]))
    problem = replace(some, pattern=pattern, sparsity=data.draw(st.sampled_from([0.0, 0.5, 0.9])))
    torch.set_num_threads(draw(1, 2))
    for spec in CONVOLUTIONS:
        inputs = inputs_for(spec, problem, seed=draw(0, 1000))
        assert_right(spec, inputs, residual=random_residual(inputs.problem) if data.draw(st.booleans()) else None)


def test_cost_counts_a_block_for_each_group_of_a_depthwise_layer() -> None:
    """Lanes of one block read the same input: those of other groups cannot share it."""
    kernel = next(kernel for kernel in KERNELS if kernel.name == "conv2d_vector_f32_nhwc__avx512")
    sizes = {
        "op": "conv2d",
        "n": 1,
        "c_in": 64,
        "c_out": 64,
        "h_in": 14,
        "w_in": 14,
        "kernel": (3, 3),
        "padding": (1, 1),
    }
    depthwise = kernel.cost(Problem(**sizes, groups=64, pattern="filter", sparsity=0.5))
    whole = kernel.cost(Problem(**sizes, pattern="filter", sparsity=0.5))
    # 32 filters that are left: a block each, or two blocks of sixteen that see 64 channels.
    assert depthwise.flop == pytest.approx(whole.flop * 32 / (2 * 64))
