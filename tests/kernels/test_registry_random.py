"""Random problems: whatever kernel says it can run them must give what the reference gives."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import random_convolutions

from sparseplan.kernels.cpu import ISA_VARIABLE, detect_machine
from sparseplan.kernels.inputs import LayerInputs, random_inputs
from sparseplan.kernels.problem import Dtype, Op, Problem
from sparseplan.kernels.reference import error_limit, relative_error
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.select import eligible, select
from sparseplan.kernels.spec import KernelSpec
from sparseplan.kernels.weights import impose_pattern

MACHINE = detect_machine({})
PATTERNS = (
    "dense",
    "unstructured",
    "block:16x1",
    "block:8x1",
    "block:16x32",
    "block:16x64",
    "block:3x2",
    "2:4",
    "1:4",
    "filter",
    "channel",
    "shape",
    "filter2d",
    "lowrank",
    "filter+shape",
    "channel+block:16x32",
    "2:4+filter",
    "sas:1:2",
    "sas:1:4",
)
DTYPES: tuple[Dtype, ...] = tuple(dict.fromkeys(kernel.dtype for kernel in REGISTRY))
SPARSITIES = (0.0, 0.3, 0.75, 0.95, 1.0)


@pytest.fixture(autouse=True)
def _torch_threads_are_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@st.composite
def conv2d_problems(draw: st.DrawFn) -> Problem:
    channels, groups = st.integers(1, 40), st.sampled_from((1, 1, 1, 2, 3))
    some = draw(random_convolutions(n=st.integers(1, 18), channels=channels, outputs=channels, groups=groups))
    return replace(some, dtype=draw(st.sampled_from(DTYPES)), threads=draw(st.integers(1, 3)))


@st.composite
def linear_problems(draw: st.DrawFn) -> Problem:
    return Problem(
        op="linear",
        n=draw(st.integers(1, 40)),
        c_in=draw(st.integers(1, 300)),
        c_out=draw(st.integers(1, 150)),
        dtype=draw(st.sampled_from(DTYPES)),
        threads=draw(st.integers(1, 3)),
    )


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(
    problem=st.one_of(conv2d_problems(), linear_problems()),
    pattern=st.sampled_from(PATTERNS),
    sparsity=st.sampled_from(SPARSITIES),
    relu=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_eligible_kernel_agrees(problem: Problem, pattern: str, sparsity: float, relu: bool, seed: int) -> None:
    problem = problem.with_sparsity(pattern, 0.0 if pattern == "dense" else sparsity)
    inputs = replace(_inputs(problem, seed), relu=relu)
    expected = inputs.expected()
    for kernel in eligible(problem, MACHINE, REGISTRY):
        if kernel.isa == "any" and _sees_only_padding(problem):
            continue
        error = relative_error(_run(kernel, inputs), expected)
        assert error <= error_limit(problem), f"{kernel.name} is wrong by {error:.2g}"


@pytest.mark.parametrize("isa", MACHINE.isa)
@pytest.mark.parametrize("op", ["conv2d", "linear"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_each_instruction_set_forced(isa: str, op: Op, dtype: Dtype) -> None:
    """What `select` picks under a cap needs nothing beyond it, and is right."""
    machine = detect_machine({ISA_VARIABLE: isa})
    allowed = {"any", *MACHINE.isa[: MACHINE.isa.index(isa) + 1]}
    image = {"h_in": 9, "w_in": 10, "kernel": (3, 3), "padding": (1, 1)} if op == "conv2d" else {}
    base = Problem(op=op, n=17, c_in=35, c_out=50, dtype=dtype, **image)  # type: ignore[arg-type]
    for pattern in ("unstructured", "block:16x1", "2:4", "filter+shape"):
        problem = base.with_sparsity(pattern, 0.75)
        kernel = select(problem, machine, REGISTRY)
        if not isinstance(kernel, KernelSpec):
            assert dtype != "float32", kernel.message
            continue
        assert kernel.isa in allowed
        inputs = _inputs(problem, 0)
        assert relative_error(_run(kernel, inputs), inputs.expected()) <= error_limit(problem), kernel.name


def _sees_only_padding(problem: Problem) -> bool:
    """Whether an output may see nothing but padding: oneDNN then crashes (uxlfoundation/oneDNN issue 5942)."""
    reach = [spread * (taps - 1) for spread, taps in zip(problem.dilation, problem.kernel, strict=True)]
    return any(zeros > least for zeros, least in zip(problem.padding, reach, strict=True))


def _inputs(problem: Problem, seed: int) -> LayerInputs:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(problem.weight_shape, generator=generator)
    weight = torch.zeros_like(dense) if problem.sparsity == 1.0 else impose_pattern(dense, problem)
    return random_inputs(problem, weight, generator)


def _run(kernel: KernelSpec, inputs: LayerInputs) -> torch.Tensor:
    torch.set_num_threads(inputs.problem.threads)
    with torch.inference_mode():
        y: torch.Tensor = kernel.run(inputs.pack(kernel), inputs.x_for(kernel))
    return y
