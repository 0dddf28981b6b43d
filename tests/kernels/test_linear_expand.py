"""Linear layers that expand compressed weights in registers, in every instruction set and format that runs here."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_agreement import ROUNDING, exact
from torch import Tensor

from sparseplan.kernels import _native
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.dense import TORCH_DTYPES
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.linear_expand import EXPAND_SETS, KERNELS, MOST_SAMPLES
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import DTYPE_BYTES, Problem
from sparseplan.kernels.spec import KernelSpec, Machine

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = detect_machine({})
RUNNABLE = [spec for spec in KERNELS if spec.isa in MACHINE.isa]
every_kernel = pytest.mark.parametrize("spec", RUNNABLE, ids=lambda spec: spec.name)
BFLOAT16_ROUNDING = 2.0**-8
"""Half a unit in the last place of bfloat16, relative."""
LANES = {kernels.isa: kernels.lanes for kernels in EXPAND_SETS}


def linear(spec: KernelSpec, n: int, c_in: int, c_out: int, *, pattern: str = "", sparsity: float = 0.7) -> Problem:
    """A problem for a kernel; without a pattern, 2:4 for those that need groups and scattered zeros for the others."""
    pattern = pattern or ("2:4" if "_nm_" in spec.name else "unstructured")
    sparsity = parse_pattern(pattern).least_sparsity if ":" in pattern else sparsity
    return Problem(op="linear", n=n, c_in=c_in, c_out=c_out, dtype=spec.dtype, pattern=pattern, sparsity=sparsity)


def layer(problem: Problem, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weight with the zeros of the pattern, and bias; the first two rounded to the dtype of the problem."""
    generator = torch.Generator().manual_seed(seed)
    dtype = TORCH_DTYPES[problem.dtype]
    weight = torch.randn(problem.weight_shape, generator=generator)
    weight = weight * magnitude_mask(weight, parse_pattern(problem.pattern), problem.sparsity)
    x = torch.randn(problem.input_shape, generator=generator).to(dtype)
    return x, weight.to(dtype).float(), torch.randn(problem.c_out, generator=generator)


def scattered(problem: Problem, density: float, *, seed: int = 0) -> Tensor:
    """A weight whose zeros lie anywhere, whatever the pattern."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(problem.weight_shape, generator=generator).to(TORCH_DTYPES[problem.dtype]).float()
    return weight * (torch.rand(problem.weight_shape, generator=generator) < density)


def assert_agrees(
    spec: KernelSpec, problem: Problem, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """The limit of `native_agreement` for sums in float32, plus the rounding of a bfloat16 result."""
    _native.fill_scratch(math.nan, torch.get_num_threads())
    y = spec.run(spec.pack(problem, weight, bias, relu), x)
    expected = exact(problem, x, weight, bias)
    magnitude = exact(problem, x.abs(), weight.abs(), None if bias is None else bias.abs())
    expected = expected.relu() if relu else expected
    limit = 4.0 * ROUNDING * math.sqrt(problem.c_in + 1) * magnitude
    if problem.dtype == "bfloat16":
        limit = limit + BFLOAT16_ROUNDING * expected.abs()
    assert y.shape == problem.output_shape
    assert y.dtype == x.dtype
    excess = ((y.double() - expected).abs() - limit).max().item()
    assert excess <= 0.0, f"{spec.name} exceeds its error limit by {excess:.3e}"
    return y


@every_kernel
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 16])
@pytest.mark.parametrize(("c_in", "c_out"), [(1, 1), (5, 3), (37, 19), (64, 48), (257, 9), (1024, 8)])
def test_agrees_with_float64(spec: KernelSpec, n: int, c_in: int, c_out: int) -> None:
    problem = linear(spec, n, c_in, c_out)
    assert_agrees(spec, problem, *layer(problem))


@every_kernel
@pytest.mark.parametrize("pattern", ["1:2", "1:4", "2:4", "3:4", "1:8", "4:8", "7:8", "2:5", "channel+1:4"])
def test_groups_of_every_size(spec: KernelSpec, pattern: str) -> None:
    problem = linear(spec, 3, 301, 21, pattern=pattern)
    if spec.why_unsupported(problem, MACHINE):
        assert pattern == "2:5", "only groups of 2, 4 and 8 can be chosen from"
        return
    assert_agrees(spec, problem, *layer(problem))


@every_kernel
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("relu", [False, True])
def test_any_weight_runs_whatever_the_pattern(spec: KernelSpec, density: float, relu: bool) -> None:
    problem = linear(spec, 2, 333, 21)
    x, _, bias = layer(problem)
    y = assert_agrees(spec, problem, x, scattered(problem, density), bias if relu else None, relu=relu)
    if relu:
        assert y.min() >= 0.0


@every_kernel
def test_rows_and_blocks_of_unequal_fullness(spec: KernelSpec) -> None:
    problem = linear(spec, 1, 200, 40)
    x, weight, bias = layer(problem)
    weight[::3] = 0.0
    weight[16:24] = 0.0
    weight[5] = 1.25
    assert_agrees(spec, problem, x, weight, bias)


@every_kernel
@pytest.mark.parametrize("n", [1, 2, 5])
def test_residual_is_added_before_the_rectifier(spec: KernelSpec, n: int) -> None:
    problem = linear(spec, n, 70, 21)
    x, weight, bias = layer(problem)
    residual = torch.randn(problem.output_shape, generator=torch.Generator().manual_seed(3)).to(x.dtype)
    plain = spec.pack(problem, weight, bias, True)
    expected = (exact(problem, x, weight, bias) + residual.double()).relu()
    assert (spec.run(plain, x, residual).double() - expected).abs().max() <= 0.02 * expected.abs().max()
    assert not torch.equal(spec.run(plain, x, residual), spec.run(plain, x))


@every_kernel
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("n", [1, 3])
def test_zero_weights_skip_what_is_not_finite(spec: KernelSpec, bad: float, n: int) -> None:
    problem = linear(spec, n, 150, 33)
    x, weight, bias = layer(problem)
    weight[:, 9] = 0.0
    weight[:20, 70] = 0.0
    weight[20:, 70] = 1.0
    packed = spec.pack(problem, weight, bias, False)
    finite = spec.run(packed, x)
    x[-1, 9] = bad
    assert torch.equal(spec.run(packed, x), finite), "an input without weights counts for nothing"
    x[-1, 70] = bad
    y = spec.run(packed, x)
    assert torch.equal(y[:-1], finite[:-1])
    assert torch.equal(y[-1, :20], finite[-1, :20]), "zero weights skip it"
    assert torch.equal(y[-1, 20:].isnan(), torch.full((13,), math.isnan(bad))), "the others meet it"
    assert not y[-1, 20:].isfinite().any()


@every_kernel
def test_zeros_of_either_sign_are_skipped(spec: KernelSpec) -> None:
    problem = linear(spec, 1, 40, 10)
    x, weight, _ = layer(problem)
    positive = spec.pack(problem, weight, None, False)
    weight[weight == 0] = -0.0
    signed = spec.pack(problem, weight, None, False)
    assert signed.native.packed_bytes == positive.native.packed_bytes
    assert torch.equal(spec.run(signed, x), spec.run(positive, x))


@every_kernel
@pytest.mark.parametrize("n", [1, 4])
def test_threads_change_no_bit(spec: KernelSpec, n: int) -> None:
    problem = linear(spec, n, 170, 190)
    x, weight, bias = layer(problem)
    weight[:100] = 0.0
    packed = spec.pack(problem, weight, bias, False)
    one = spec.run(packed, x)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        assert torch.equal(spec.run(packed, x), one)


@every_kernel
@pytest.mark.parametrize("n", [1, 4])
def test_packed_bytes_are_those_of_the_cost(spec: KernelSpec, n: int) -> None:
    problem = linear(spec, n, 1024, 64)
    x, weight, _ = layer(problem)
    cost = spec.cost(problem)
    assert cost.bytes_copied == 2.0 * x.nbytes
    weights = cost.bytes_moved - problem.input_bytes - problem.output_bytes
    packed = spec.pack(problem, weight, None, False).native.packed_bytes
    # How many rows overflow is random where values are looked up or half vectors of them expanded.
    rel = 0.08 if "look_up" in spec.name else 0.01 if "expand" in spec.name else 0.001
    assert packed == pytest.approx(weights, rel=rel)
    assert packed < 0.6 * problem.weight_bytes


def test_a_fuller_step_comes_twice() -> None:
    """Where half vectors of values are loaded, a row with more of them takes a second step, with bits for all rows."""
    for spec in RUNNABLE:
        if "expand" not in spec.name or LANES[spec.isa] * DTYPE_BYTES[spec.dtype] < 64:
            continue
        problem = linear(spec, 1, 20 * LANES[spec.isa], 8)
        x, weight, _ = layer(problem)
        weight[:] = 0.0
        weight[:, ::4] = 1.5
        sizes = []
        for full in (LANES[spec.isa] // 2, LANES[spec.isa] // 2 + 1):
            weight[3, LANES[spec.isa] : 2 * LANES[spec.isa]] = 0.0
            weight[3, LANES[spec.isa] : LANES[spec.isa] + full] = 2.5
            assert_agrees(spec, problem, x, weight)
            packed = spec.pack(problem, weight, None, False).native.packed_bytes
            sizes.append(packed - int(weight.count_nonzero()) * DTYPE_BYTES[spec.dtype])
        assert sizes[1] - sizes[0] == LANES[spec.isa] + 4


def test_bytes_of_each_format() -> None:
    """Per weight at 2:4: half a value and one bit (two for each value of a group), or half a byte to look up."""
    for spec in RUNNABLE:
        problem = linear(spec, 1, 1024, 64, pattern="2:4")
        _, weight, _ = layer(problem)
        a_weight = spec.pack(problem, weight, None, False).native.packed_bytes / weight.numel()
        value = DTYPE_BYTES[spec.dtype]
        beside = 0.125 if "look_up" not in spec.name else 0.5 + 1 / (2 * LANES[spec.isa])
        beside += 4 / (8 * LANES[spec.isa]) if "expand" in spec.name else 0
        assert a_weight == pytest.approx(value / 2 + beside, rel=0.02), spec.name


@every_kernel
def test_refuses_foreign_tensors(spec: KernelSpec) -> None:
    problem = linear(spec, 6, 8, 6)
    x, weight, bias = layer(problem)
    for wrong in (weight[:, :3], weight.double(), weight[:, :, 0, 0]):
        with pytest.raises(InputError, match="weight is"):
            spec.pack(problem, wrong, bias, False)
    with pytest.raises(InputError, match="bias is"):
        spec.pack(problem, weight, bias[:2], False)
    packed = spec.pack(problem, weight, bias, False)
    for wrong in (x[:5], x[:, :7], x.double(), x[:, :, None, None]):
        with pytest.raises(InputError, match="input is"):
            spec.run(packed, wrong)
    y = spec.run(packed, x)
    for wrong in (y[:5], y.double(), y.mT.contiguous().mT):
        with pytest.raises(InputError, match="residual is"):
            spec.run(packed, x, wrong)
    with pytest.raises(ValueError, match="differs from the packed problem"):
        packed.native.run(x.data_ptr(), x.nbytes - 4, 0, y.data_ptr(), y.nbytes, 1)


@every_kernel
def test_strided_input_is_read_right(spec: KernelSpec) -> None:
    problem = linear(spec, 5, 90, 12)
    x, weight, bias = layer(problem)
    packed = spec.pack(problem, weight, bias, False)
    assert torch.equal(spec.run(packed, x.mT.contiguous().mT), spec.run(packed, x))


def test_native_refuses_what_it_lacks() -> None:
    weight = torch.ones(2, 2).numpy()

    def pack(isa: str, form: str, n: int = 1) -> None:
        _native.ExpandSparse(isa=isa, format=form, n=n, weight=weight, bias=None, relu=False)

    with pytest.raises(ValueError, match="no format is named 'select3'"):
        pack("baseline", "select3")
    with pytest.raises(ValueError, match="no kernel for this format"):
        pack("baseline", "look_up")
    with pytest.raises(ValueError, match="no instruction set 'avx1'"):
        pack("avx1", "expand")
    with pytest.raises(ValueError, match="at least 1"):
        pack("baseline", "select2", n=0)


def test_reasons_name_what_is_missing() -> None:
    everything = Machine(isa=("baseline", "avx2", "avx512", "avx512bf16"))
    by_name = {spec.name: spec for spec in KERNELS}
    expand, select = by_name["linear_unstructured_f32_expand__avx512"], by_name["linear_nm_bf16_select__avx512bf16"]

    def reason(spec: KernelSpec, problem: Problem, machine: Machine = everything) -> str:
        return spec.why_unsupported(problem, machine) or ""

    assert reason(expand, linear(expand, 1, 8, 8)) == ""
    assert reason(select, linear(select, 1, 8, 8)) == ""
    assert reason(expand, linear(expand, MOST_SAMPLES, 8, 8)) == ""
    assert f"exceeds {MOST_SAMPLES}" in reason(expand, linear(expand, MOST_SAMPLES + 1, 8, 8))
    assert "not 5" in reason(select, linear(select, 1, 10, 8, pattern="2:5"))
    assert "none" in reason(select, linear(select, 1, 10, 8, pattern="unstructured"))
    assert "nothing to skip" in reason(expand, linear(expand, 1, 8, 8).as_dense())
    assert "bfloat16, not float32" in reason(select, linear(expand, 1, 8, 8, pattern="2:4"))
    assert "needs avx512bf16" in reason(select, linear(select, 1, 8, 8), Machine(isa=("baseline", "avx2")))
    assert "sas" in reason(expand, linear(expand, 1, 8, 8, pattern="sas:1:2"))
    conv = Problem(op="conv2d", n=1, c_in=8, c_out=8, pattern="unstructured", sparsity=0.5)
    assert "not conv2d" in reason(expand, conv)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    n=st.integers(1, 9),
    c_in=st.integers(1, 300),
    c_out=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.8, 1.0]),
    group=st.sampled_from([2, 4, 8]),
    seed=st.integers(0, 1000),
)
def test_agrees_on_random_problems(n: int, c_in: int, c_out: int, density: float, group: int, seed: int) -> None:
    for spec in RUNNABLE:
        problem = linear(spec, n, c_in, c_out, pattern=f"1:{group}")
        x, _, bias = layer(problem, seed=seed)
        assert_agrees(spec, problem, x, scattered(problem, density, seed=seed), bias)
