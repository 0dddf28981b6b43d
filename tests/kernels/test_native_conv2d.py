"""Sparse convolution against float64, in every instruction set and layout that this machine can run."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_agreement import assert_agrees, random_layer
from random_problems import Most, random_convolutions

from sparseplan.kernels.conv2d_unstructured import KERNELS
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.layout import BLOCK_IMAGES
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reorder import from_layout, to_layout
from sparseplan.kernels.spec import KernelSpec, Machine

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = detect_machine({})
RUNNABLE = [spec for spec in KERNELS if spec.isa in MACHINE.isa]
every_kernel = pytest.mark.parametrize("spec", RUNNABLE, ids=lambda spec: spec.name)


def conv(**sizes: object) -> Problem:
    return Problem(**({"op": "conv2d", "pattern": "unstructured", "sparsity": 0.7, "n": 3} | sizes))  # type: ignore[arg-type]


PROBLEMS = {
    "odd": conv(c_in=3, c_out=5, h_in=7, w_in=9, kernel=(3, 3), padding=(1, 1)),
    "pointwise": conv(c_in=9, c_out=17, h_in=7, w_in=5),
    "pointwise whose channels alias": conv(c_in=3, c_out=4, h_in=32, w_in=32),
    "unpadded": conv(c_in=4, c_out=3, h_in=11, w_in=13, kernel=(3, 3)),
    "pointwise strided": conv(c_in=6, c_out=5, h_in=9, w_in=8, stride=(2, 2)),
    "strided": conv(c_in=4, c_out=5, h_in=19, w_in=22, kernel=(5, 4), stride=(2, 3), padding=(2, 1)),
    "stride beyond kernel": conv(c_in=2, c_out=3, h_in=17, w_in=20, kernel=(2, 2), stride=(4, 5), padding=(1, 0)),
    "dilated": conv(c_in=3, c_out=4, h_in=12, w_in=15, kernel=(3, 3), padding=(2, 3), dilation=(2, 3)),
    "strided dilated": conv(
        c_in=3, c_out=4, h_in=21, w_in=18, kernel=(3, 4), stride=(2, 3), padding=(1, 2), dilation=(3, 2)
    ),
    "grouped": conv(c_in=6, c_out=9, h_in=8, w_in=6, kernel=(3, 3), padding=(1, 1), groups=3),
    "depth-wise": conv(c_in=7, c_out=14, h_in=9, w_in=9, kernel=(3, 3), stride=(2, 2), padding=(1, 1), groups=7),
    "rectangular": conv(c_in=2, c_out=3, h_in=1, w_in=40, kernel=(1, 7), padding=(0, 3)),
    "tall": conv(c_in=2, c_out=3, h_in=40, w_in=1, kernel=(7, 1), padding=(3, 0)),
    "padding beyond kernel": conv(c_in=2, c_out=3, h_in=3, w_in=2, kernel=(1, 1), padding=(3, 4)),
    "one pixel": conv(c_in=37, c_out=19, h_in=1, w_in=1),
    "one padded pixel": conv(c_in=5, c_out=6, h_in=1, w_in=1, kernel=(3, 3), padding=(1, 1)),
    "to one pixel": conv(c_in=5, c_out=18, h_in=4, w_in=3, kernel=(4, 3)),
    "channels in blocks": conv(c_in=200, c_out=70, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1), sparsity=0.5),
    "wide rows": conv(c_in=2, c_out=2, h_in=3, w_in=500, kernel=(3, 3), padding=(1, 1)),
}


def with_batch(problem: Problem, n: int) -> Problem:
    return Problem(**{name: getattr(problem, name) for name in problem.__dataclass_fields__} | {"n": n})


@every_kernel
@pytest.mark.parametrize("n", [1, 3, 16, 17, 33])
@pytest.mark.parametrize("name", PROBLEMS)
def test_agrees_with_float64(spec: KernelSpec, name: str, n: int) -> None:
    problem = with_batch(PROBLEMS[name], n)
    if spec.why_unsupported(problem, MACHINE) is not None:
        assert n < 8, "every batch that fills half of the vectors is supported"
        return
    assert_agrees(spec, problem, *random_layer(problem))


@every_kernel
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
def test_bias_and_relu_at_every_density(spec: KernelSpec, sparsity: float, relu: bool, has_bias: bool) -> None:
    problem = conv(n=17, c_in=6, c_out=10, h_in=6, w_in=7, kernel=(3, 3), padding=(1, 1), sparsity=sparsity)
    x, weight, bias = random_layer(problem)
    y = assert_agrees(spec, problem, x, weight, bias if has_bias else None, relu=relu)
    if not has_bias and sparsity == 1.0:
        assert torch.count_nonzero(y) == 0
    if relu:
        assert y.min() >= 0.0


@every_kernel
def test_relu_of_blocked_channels_comes_last(spec: KernelSpec) -> None:
    problem = with_batch(PROBLEMS["channels in blocks"], 16)
    assert_agrees(spec, problem, *random_layer(problem), relu=True)


@every_kernel
@pytest.mark.parametrize("n", [16, 33, 40])
@pytest.mark.parametrize("name", ["odd", "channels in blocks", "depth-wise", "one pixel"])
def test_threads_change_no_bit(spec: KernelSpec, name: str, n: int) -> None:
    problem = with_batch(PROBLEMS[name], n)
    x, weight, bias = random_layer(problem)
    packed, x = spec.pack(problem, weight, bias, True), to_layout(x, spec.layout)
    one = spec.run(packed, x)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        # Not torch.equal: the spare lanes of a last block may hold anything.
        assert torch.equal(*(from_layout(y, spec.layout, n) for y in (spec.run(packed, x), one)))


@every_kernel
def test_concurrent_runs_do_not_share_memory(spec: KernelSpec) -> None:
    problems = [with_batch(PROBLEMS[name], 16) for name in ("channels in blocks", "strided dilated")]
    layers = [
        (spec.pack(problem, *random_layer(problem)[1:], False), to_layout(random_layer(problem)[0], spec.layout))
        for problem in problems
    ]
    alone = [spec.run(packed, x) for packed, x in layers]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda layer: spec.run(*layer), layers * 5))
    assert all(torch.equal(y, alone[i % 2]) for i, y in enumerate(together))


@every_kernel
def test_packs_only_what_is_not_zero(spec: KernelSpec) -> None:
    problem = with_batch(PROBLEMS["channels in blocks"], 16)
    _, weight, _ = random_layer(problem)
    weight[:, :, 1] = 0.0
    assert spec.pack(problem, weight, None, False).native.nonzeros == torch.count_nonzero(weight)


@every_kernel
def test_nan_stays_where_it_belongs(spec: KernelSpec) -> None:
    problem = conv(n=16, c_in=2, c_out=3, h_in=6, w_in=6, kernel=(3, 3), padding=(1, 1), sparsity=0.0)
    x, weight, bias = random_layer(problem)
    x[5, 0, 0, 0] = float("nan")
    y = spec.run(spec.pack(problem, weight, bias, True), to_layout(x, spec.layout))
    poisoned = torch.zeros(problem.output_shape, dtype=torch.bool)
    poisoned[5, :, :2, :2] = True
    assert torch.equal(from_layout(y, spec.layout, 16).isnan(), poisoned)


@pytest.mark.parametrize("spec", [spec for spec in RUNNABLE if spec.layout in BLOCK_IMAGES], ids=lambda spec: spec.name)
@pytest.mark.parametrize("name", ["odd", "pointwise", "strided", "one pixel"])
def test_spare_lanes_of_a_block_touch_no_image(spec: KernelSpec, name: str) -> None:
    problem = with_batch(PROBLEMS[name], 17)
    x, weight, bias = random_layer(problem)
    packed, blocked = spec.pack(problem, weight, bias, True), to_layout(x, spec.layout)
    clean = spec.run(packed, blocked)
    blocked[-1, ..., 17 % BLOCK_IMAGES[spec.layout] :] = float("nan")
    assert torch.equal(*(from_layout(y, spec.layout, 17) for y in (spec.run(packed, blocked), clean)))


@every_kernel
def test_takes_any_memory_order_and_gradients(spec: KernelSpec) -> None:
    problem = conv(n=16, c_in=4, c_out=3, h_in=5, w_in=6, kernel=(3, 3), padding=(1, 1))
    x, weight, bias = random_layer(problem)
    packed = spec.pack(problem, weight.requires_grad_(), bias, False)
    if spec.layout in BLOCK_IMAGES:
        x = to_layout(x, spec.layout)
        other = x.mT.contiguous().mT.requires_grad_()
    else:
        other = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.equal(spec.run(packed, other), spec.run(packed, x))


@every_kernel
def test_refuses_foreign_tensors(spec: KernelSpec) -> None:
    problem = conv(n=16, c_in=4, c_out=3, h_in=5, w_in=6, kernel=(3, 3), padding=(1, 1))
    x, weight, bias = random_layer(problem)
    for wrong in (weight[:, :3], weight.double(), weight[:, :, :, :2]):
        with pytest.raises(InputError, match="weight is"):
            spec.pack(problem, wrong, bias, False)
    with pytest.raises(InputError, match="bias is"):
        spec.pack(problem, weight, bias[:2], False)
    packed, x = spec.pack(problem, weight, bias, False), to_layout(x, spec.layout)
    for wrong in (x[1:], x[:, :, :, :5], x.double(), x[0]):
        with pytest.raises(InputError, match="input is"):
            spec.run(packed, wrong)


def spec_of(name: str) -> KernelSpec:
    return next(spec for spec in KERNELS if spec.name == name)


def test_reasons_name_what_is_missing() -> None:
    flat, interleaved = spec_of("conv2d_unstructured_f32_flat__avx2"), spec_of("conv2d_unstructured_f32_n16__avx512")
    everything = Machine(isa=("baseline", "avx2", "avx512"))
    problem = conv(n=16, c_in=8, c_out=8, h_in=8, w_in=8)
    assert flat.why_unsupported(problem, everything) is None
    assert interleaved.why_unsupported(problem, everything) is None
    assert "avx2" in (flat.why_unsupported(problem, Machine(isa=("baseline",))) or "")
    assert interleaved.why_unsupported(with_batch(problem, 8), everything) is None
    assert "16 lanes" in (interleaved.why_unsupported(with_batch(problem, 7), everything) or "")
    assert "nothing to skip" in (flat.why_unsupported(problem.as_dense(), everything) or "")
    assert "sas" in (flat.why_unsupported(problem.with_sparsity("sas:1:2", 0.0), everything) or "")
    assert "float32" in (flat.why_unsupported(conv(c_in=8, c_out=8, dtype="bfloat16"), everything) or "")
    linear = Problem(op="linear", n=16, c_in=8, c_out=8, pattern="unstructured", sparsity=0.5)
    assert "linear" in (flat.why_unsupported(linear, everything) or "")
    huge = conv(n=16, c_in=64, c_out=1, h_in=4096, w_in=4096, kernel=(3, 3))
    assert "exceeds" in (interleaved.why_unsupported(huge, everything) or "")
    for pattern in ("filter+shape", "2:4", "block:16x1", "channel", "filter2d"):
        assert flat.why_unsupported(problem.with_sparsity(pattern, 0.5), everything) is None


@pytest.mark.parametrize("spec", KERNELS, ids=lambda spec: spec.name)
def test_cost_counts_what_runs(spec: KernelSpec) -> None:
    problem = conv(n=32, c_in=64, c_out=64, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1))
    costs = [spec.cost(problem.with_sparsity("unstructured", sparsity / 100)) for sparsity in range(101)]
    for sparsity, cost in enumerate(costs):
        useful = problem.flop_dense_equiv * (1.0 - sparsity / 100)
        assert useful * (1 - 1e-9) <= cost.flop <= 1.5 * useful + 1.0
        assert cost.bytes_moved >= problem.input_bytes + problem.output_bytes
        assert cost.tasks >= 1
    streamed = [cost.bytes_streamed for cost in costs]
    steps = [before - after for before, after in pairwise(streamed)]
    assert min(steps) > 0.0, "sparser is never more"
    assert max(steps) < 0.04 * streamed[0], "no jumps"


@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_agrees_on_random_problems(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    sizes = {"n": st.integers(1, 18), "channels": st.integers(1, 5), "outputs": st.integers(1, 6)}
    some = data.draw(random_convolutions(**sizes, most=Most(taps=5, stride=4, rows=15, columns=40)))
    sparsity = data.draw(st.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]))
    problem = replace(some, pattern="unstructured", sparsity=sparsity)
    x, weight, bias = random_layer(problem, seed=draw(0, 1000))
    residual = torch.randn(problem.output_shape) if data.draw(st.booleans()) else None
    for spec in RUNNABLE:
        if spec.why_unsupported(problem, MACHINE) is None:
            assert_agrees(spec, problem, x, weight, bias, relu=data.draw(st.booleans()), residual=residual)
