"""Every kernel of the registry on awkward shapes and weights, against the reference."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from kernel_agreement import awkward_weights, check_agreement, fill_new_memory_with_nan

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.dense import SHORT_DTYPES
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY, kernel_named
from sparseplan.kernels.spec import KernelSpec, Machine

CONVOLUTIONS = {
    "odd": Problem(op="conv2d", n=3, c_in=7, c_out=5, h_in=9, w_in=11, kernel=(3, 3), padding=(1, 1)),
    "tail": Problem(op="conv2d", n=17, c_in=33, c_out=19, h_in=5, w_in=6, kernel=(3, 3), padding=(1, 1)),
    "full_blocks": Problem(op="conv2d", n=16, c_in=32, c_out=48, h_in=8, w_in=8, kernel=(3, 3), padding=(1, 1)),
    "one_image": Problem(op="conv2d", n=1, c_in=6, c_out=10, h_in=19, w_in=18, kernel=(5, 5), padding=(2, 2)),
    "pointwise": Problem(op="conv2d", n=4, c_in=24, c_out=18, h_in=7, w_in=5),
    "pointwise_strided": Problem(op="conv2d", n=2, c_in=9, c_out=16, h_in=7, w_in=8, stride=(2, 2)),
    "strided": Problem(op="conv2d", n=2, c_in=8, c_out=20, h_in=13, w_in=14, kernel=(3, 3), stride=(2, 3)),
    "dilated": Problem(op="conv2d", n=2, c_in=5, c_out=8, h_in=11, w_in=12, kernel=(3, 3), dilation=(2, 3)),
    "grouped": Problem(op="conv2d", n=2, c_in=12, c_out=8, h_in=6, w_in=6, kernel=(3, 3), padding=(1, 1), groups=4),
    "depthwise": Problem(op="conv2d", n=2, c_in=18, c_out=18, h_in=8, w_in=9, kernel=(3, 3), padding=(1, 1), groups=18),
    "rectangular": Problem(
        op="conv2d", n=2, c_in=6, c_out=9, h_in=4, w_in=15, kernel=(1, 5), stride=(1, 2), padding=(0, 2)
    ),
    "wide_padding": Problem(op="conv2d", n=1, c_in=3, c_out=4, h_in=3, w_in=2, kernel=(4, 2), padding=(3, 2)),
    "one_pixel": Problem(op="conv2d", n=5, c_in=10, c_out=6, h_in=3, w_in=3, kernel=(3, 3)),
    "one_of_all": Problem(op="conv2d", n=1, c_in=1, c_out=1, h_in=1, w_in=1),
}
LINEARS = {
    "odd": Problem(op="linear", n=3, c_in=37, c_out=21),
    "tail": Problem(op="linear", n=17, c_in=65, c_out=33),
    "full_blocks": Problem(op="linear", n=16, c_in=64, c_out=128),
    "one_sample": Problem(op="linear", n=1, c_in=1500, c_out=10),
    "one_output": Problem(op="linear", n=4, c_in=19, c_out=1),
    "one_of_all": Problem(op="linear", n=1, c_in=1, c_out=1),
}
UNITS_OF_DTYPE = {
    "float32": ("fma_f32", "gpu_f32", "gpu_tf32x3"),
    "float16": ("fma_f16", "gpu_f16", "gpu_f16_2:4"),
    "bfloat16": ("dot_bf16", "tile_bf16", "gpu_bf16", "gpu_bf16_2:4"),
    "int8": ("dot_int8", "tile_int8"),
}
ON_THE_CPU = tuple(kernel for kernel in REGISTRY if kernel.device == "cpu")
"""Those of other devices are tested in `tests/gpu`."""
SCATTERED = 0.2
EXAMPLES_OF_KIND = {"block": ("block:4x2",), "n:m": ("2:4",), "v:n:m": ("4:2:8",), "sas": ("sas:1:2", "sas:1:4")}


@pytest.fixture(autouse=True)
def _fresh_memory_holds_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    fill_new_memory_with_nan(monkeypatch)


@pytest.fixture(autouse=True)
def _torch_threads_are_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _cases() -> Iterator[object]:
    for kernel in ON_THE_CPU:
        shapes = CONVOLUTIONS if kernel.op == "conv2d" else LINEARS
        for name, problem in shapes.items():
            yield pytest.param(kernel, problem, id=f"{kernel.name}-{name}")
        # Threads that share the work unevenly; on the shape whose sizes divide by nothing.
        yield pytest.param(kernel, replace(shapes["tail"], threads=3), id=f"{kernel.name}-tail-threads")


def patterns_of(kernel: KernelSpec) -> list[str]:
    """Examples of what a kernel can skip."""
    return [pattern for kind in kernel.patterns for pattern in EXAMPLES_OF_KIND.get(kind, (kind,))]


def _under(problem: Problem, kernel: KernelSpec, pattern: str) -> Problem:
    sized = problem.with_sparsity(pattern, 0.0 if pattern == "dense" else 0.6)
    return replace(sized, dtype=kernel.dtype)


@pytest.mark.parametrize(("kernel", "problem"), tuple(_cases()))
def test_kernel_against_reference(kernel: KernelSpec, problem: Problem) -> None:
    machine = detect_machine()
    torch.set_num_threads(problem.threads)
    generator = torch.Generator().manual_seed(1)
    reasons = []
    patterns = patterns_of(kernel)
    for pattern in patterns:
        sized = _under(problem, kernel, pattern)
        if kernel.why_unsupported(sized, machine):
            # Kernels that interleave images want more of them.
            sized = replace(sized, n=35 if kernel.dtype == "float16" else 19)
        if reason := kernel.why_unsupported(sized, machine):
            reasons.append(reason)
            continue
        for name, weight in awkward_weights(sized, generator, scattered=SCATTERED).items():
            plain = random_inputs(sized, weight, generator)
            added = plain.with_residual(generator)
            for inputs in (plain, replace(added, bias=None, relu=False), added):
                check_agreement(kernel, inputs, where=f"{pattern}, weight {name},", runs=2)
    if len(reasons) == len(patterns):
        pytest.skip(reasons[0])


@pytest.mark.parametrize("kernel", ON_THE_CPU, ids=lambda kernel: kernel.name)
def test_foreign_residual_is_refused(kernel: KernelSpec) -> None:
    problem = (CONVOLUTIONS if kernel.op == "conv2d" else LINEARS)["full_blocks"]
    sized = replace(_under(problem, kernel, patterns_of(kernel)[0]), n=2 if kernel.op == "linear" else problem.n)
    if kernel.why_unsupported(sized, detect_machine()):
        # Kernels that interleave images want more of them.
        sized = replace(sized, n=32)
    if reason := kernel.why_unsupported(sized, detect_machine()):
        pytest.skip(reason)
    generator = torch.Generator().manual_seed(1)
    weight = awkward_weights(sized, generator, scattered=SCATTERED)["pattern"]
    weight[0] = 0.0
    inputs = random_inputs(sized, weight, generator).with_residual(generator)
    packed, x, right = inputs.pack(kernel), inputs.x_for(kernel), inputs.residual_for(kernel)
    assert right is not None
    strided = right.transpose(0, -1).contiguous().transpose(0, -1)
    for wrong in (right[1:], right.double(), strided, right[0], right.to("meta")):
        with pytest.raises(InputError, match="residual is"):
            kernel.run(packed, x, wrong)
    kernel.run(packed, x, right)


@pytest.mark.parametrize("kernel", REGISTRY, ids=lambda kernel: kernel.name)
def test_cost_counts_work(kernel: KernelSpec) -> None:
    """At least the useful work and the compulsory bytes, and no more flop where the pattern is sparser."""
    problem = CONVOLUTIONS["full_blocks"] if kernel.op == "conv2d" else LINEARS["full_blocks"]
    for pattern in patterns_of(kernel):
        sized = _under(problem, kernel, pattern)
        cost = kernel.cost(sized)
        assert sized.flop_useful * 0.9 <= cost.flop
        assert cost.bytes_streamed > 0
        # What a gather or scatter touches counts as copied.
        assert cost.bytes_moved + cost.bytes_copied >= sized.input_bytes + sized.output_bytes
        assert cost.tasks >= 1
        assert cost.unit in UNITS_OF_DTYPE[kernel.dtype]
        if parse_pattern(sized.pattern).fixed_sparsity is None:
            sparser = kernel.cost(sized.with_sparsity(sized.pattern, 0.9))
            # A few steps of half vectors come twice, hardly ever at 90 % zeros.
            assert sparser.flop <= cost.flop * 1.001


@pytest.mark.parametrize("kernel", ON_THE_CPU, ids=lambda kernel: kernel.name)
def test_every_kernel_has_a_problem_it_runs(kernel: KernelSpec) -> None:
    """Guards against a table of shapes on which a kernel is always skipped."""
    here = detect_machine()
    machine = Machine(isa=(*here.isa, kernel.isa, "avx512"), torch_ops=here.torch_ops)
    shapes = CONVOLUTIONS if kernel.op == "conv2d" else LINEARS
    if kernel.name.endswith("onednn") and not machine.torch_ops:
        pytest.skip("this torch has no oneDNN")
    assert any(
        kernel.why_unsupported(_under(problem, kernel, pattern), machine) is None
        for problem in shapes.values()
        for pattern in patterns_of(kernel)
    )


def test_names_are_unique_and_say_what_they_are() -> None:
    names = [kernel.name for kernel in REGISTRY]
    assert len(set(names)) == len(names)
    for kernel in REGISTRY:
        assert kernel.name.startswith(f"{kernel.op}_")
        assert f"_{SHORT_DTYPES[kernel.dtype]}_" in kernel.name


def test_kernel_named() -> None:
    assert kernel_named("linear_dense_f32_nchw__torch").op == "linear"
    with pytest.raises(
        InputError, match=r"no kernel is named 'linear_dense_f32'; close names: .*linear_dense_f32_nchw"
    ):
        kernel_named("linear_dense_f32")
    with pytest.raises(InputError, match="close names: "):
        kernel_named("?")
