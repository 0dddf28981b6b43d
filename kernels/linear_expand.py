"""Sparse linear layer for small batches: compressed weights are expanded in registers, lanes along the input.

At small batch a layer takes as long as its weights take to arrive. All formats store the values that are not zero in
the order in which they are read, and few bits beside them:

- "expand": one bit a weight says where the next values belong. Any zero is skipped in memory, not in arithmetic. Half
  vectors of values are loaded where most rows have no more of them for a vector of inputs; fuller ones come twice.
- "look_up": one byte a value says where in a window of two vectors its input stands, and a permutation of the window
  brings the inputs to the values. More bytes than bits take below 7/8 zeros, but one product for two vectors of inputs.
- "select", for n:m weights: a vector of values holds one value for each group of m inputs, and log2(m) bits say which
  of them it multiplies; the input is dealt out once into m vectors that blends choose from. No product is spent on
  zeros, and no byte.

A zero weight skips its input also where that is infinite or NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from . import _native
from .check import check_weights
from .dense import SHORT_DTYPES, UNITS
from .native_layer import NATIVE_PATTERNS, run_native, to_numpy
from .pattern import NmPart, parse_pattern
from .problem import DTYPE_BYTES, Dtype, Problem
from .spec import Cost, KernelSpec, Machine

Method = Literal["expand", "look_up", "select"]

MANY_ROWS, FEW_ROWS = 8, 4
"""Outputs that share the loads of the input, as in ``native/expand/plan.h``."""
LINE_BYTES, WINDOW_BYTES = 64, 4
"""Of a cache line, and of the number of a step's inputs."""
MOST_TWICE = 0.25
"""Share of steps that may come twice before half vectors of values take longer than whole ones."""
SELECT_GROUPS = (2, 4, 8)
"""Inputs that "select" can choose from."""
MOST_SAMPLES = 32
"""One pass over the weights serves two or four samples, and all but "select" multiply zeros: measured on Zen 4, dense
oneDNN catches up at 8 to 16 samples, with 1:4 beyond 16. Larger batches are not worth a measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandSet:
    """What the kernels of one instruction set work on: dtype, values in a vector, and the formats there are."""

    isa: str
    dtype: Dtype
    lanes: int
    methods: tuple[Method, ...]

    @property
    def vector_bytes(self) -> int:
        return self.lanes * DTYPE_BYTES[self.dtype]


EXPAND_SETS = (
    ExpandSet(isa="avx512bf16", dtype="bfloat16", lanes=32, methods=("expand", "look_up", "select")),
    ExpandSet(isa="avx512", dtype="float32", lanes=16, methods=("expand", "look_up", "select")),
    ExpandSet(isa="avx2", dtype="float32", lanes=8, methods=("expand", "select")),
    ExpandSet(isa="baseline", dtype="float32", lanes=8, methods=("select",)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedExpand:
    """Weights ready to run, for exactly one problem."""

    problem: Problem
    native: _native.ExpandSparse


def _nm_part(problem: Problem) -> NmPart:
    return next(part for part in parse_pattern(problem.pattern).parts if isinstance(part, NmPart))


def _pack(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, kernels: ExpandSet, method: Method
) -> PackedExpand:
    check_weights(problem, weight, bias)
    native = _native.ExpandSparse(
        isa=kernels.isa,
        format=f"select{_nm_part(problem).m}" if method == "select" else method,
        n=problem.n,
        weight=to_numpy(weight).reshape(problem.c_out, problem.c_in),
        bias=None if bias is None else to_numpy(bias),
        relu=relu,
    )
    return PackedExpand(problem=problem, native=native)


def _run(packed: PackedExpand, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """[N, C] to [N, K], both of the dtype of the packed problem; the residual is added before the ReLU.

    Raises
    ------
    InputError
        If `x` does not have the shape and dtype of the problem, or `residual` is not like the output.
    """
    return run_native(packed.problem, packed.native, x, residual)


def _cost(problem: Problem, *, kernels: ExpandSet, method: Method) -> Cost:
    """Blocks of rows, steps of inputs and empty lanes in full; what crosses a line counts as two loads."""
    rows = FEW_ROWS if method == "expand" and problem.n > 2 else MANY_ROWS
    samples = 4 if rows == FEW_ROWS else 2
    blocks = math.ceil(problem.c_out / rows)
    passes = math.ceil(problem.n / samples)
    nonzeros = problem.weight_count * (1.0 - problem.sparsity)
    value_bytes, vector_bytes = DTYPE_BYTES[problem.dtype], kernels.vector_bytes
    if method == "select":
        part = _nm_part(problem)
        inputs = _round_up(problem.c_in, kernels.lanes * part.m)
        vectors = blocks * rows * inputs / (kernels.lanes * part.m) * part.n
        beside = vectors * kernels.lanes * math.log2(part.m) / 8.0
        weights = vectors * vector_bytes + beside
        # One sample's inputs stay in registers for all rows of a block, two samples' for two rows.
        streamed, input_loads = weights, blocks * inputs * (1 if problem.n == 1 else part.n * rows // 2)
    elif method == "look_up":
        inputs = _round_up(problem.c_in, 2 * kernels.lanes)
        vectors = blocks * rows * _windows(problem, kernels, inputs)
        weights = nonzeros * (value_bytes + 1.0) + vectors
        streamed, input_loads = vectors * (2.0 * vector_bytes + kernels.lanes + 1.0), blocks * inputs
    else:
        inputs = _round_up(problem.c_in, kernels.lanes)
        steps_of_block, crossing = _expand_steps(problem, kernels, rows)
        vectors = blocks * rows * steps_of_block
        beside = vectors * kernels.lanes / 8.0 + blocks * steps_of_block * WINDOW_BYTES
        weights = nonzeros * value_bytes + beside
        streamed, input_loads = vectors * crossing * vector_bytes + beside, blocks * inputs
    dealt = float(problem.n * inputs * value_bytes)
    return Cost(
        unit=UNITS[problem.dtype],
        flop=2.0 * vectors * kernels.lanes * problem.n,
        bytes_streamed=streamed * passes + float(input_loads * problem.n * value_bytes),
        bytes_moved=problem.input_bytes + problem.output_bytes + weights,
        tasks=blocks,
        bytes_copied=2.0 * dealt,
        starts=float(blocks * passes),
    )


def _expand_steps(problem: Problem, kernels: ExpandSet, rows: int) -> tuple[float, float]:
    """Steps of a block of "expand", and for how many loads the values of a row and step count.

    As `halves_pay` of native/expand/pack.cpp decides: with half vectors, steps come twice where a row has more values;
    half of these loads cross a line, whole vectors almost always do.
    """
    steps = math.ceil(problem.c_in / kernels.lanes)
    most, density = kernels.lanes // 2, 1.0 - problem.sparsity
    fuller = sum(
        math.comb(kernels.lanes, count) * density**count * problem.sparsity ** (kernels.lanes - count)
        for count in range(most + 1, kernels.lanes + 1)
    )
    twice = 1.0 - (1.0 - fuller) ** rows
    if kernels.vector_bytes < LINE_BYTES or twice >= MOST_TWICE:
        return float(steps), 2.0
    return steps * (1.0 + twice), 1.5


def _windows(problem: Problem, kernels: ExpandSet, inputs: int) -> float:
    """Windows of a row: each once, and once more where it holds more values than a vector has lanes.

    The values in a window of w inputs are about normal, with mean w d and variance w d (1 - d) at a density d.
    """
    width = 2 * kernels.lanes
    density = 1.0 - problem.sparsity
    spread = math.sqrt(width * density * problem.sparsity)
    excess = width * density - kernels.lanes - 0.5
    fuller = 0.5 * math.erfc(-excess / (math.sqrt(2.0) * spread)) if spread > 0.0 else float(excess > 0.0)
    return inputs / width * (1.0 + fuller)


def _round_up(count: int, step: int) -> int:
    return math.ceil(count / step) * step


def _why_unsupported(problem: Problem, machine: Machine, *, kernels: ExpandSet, method: Method) -> str | None:
    if problem.op != "linear":
        return f"runs linear, not {problem.op}"
    if problem.dtype != kernels.dtype:
        return f"computes in {kernels.dtype}, not {problem.dtype}"
    if kernels.isa not in machine.isa:
        return f"needs {kernels.isa}, this machine allows {', '.join(machine.isa) or 'no CPU instruction set'}"
    if problem.n > MOST_SAMPLES:
        return f"batch {problem.n} exceeds {MOST_SAMPLES}, beyond which other kernels use each weight more often"
    kinds = parse_pattern(problem.pattern).kinds
    if not kinds:
        return "pattern 'dense' leaves nothing to skip"
    if foreign := [kind for kind in kinds if kind not in NATIVE_PATTERNS]:
        return f"skips zero weights in {', '.join(NATIVE_PATTERNS)}, not {', '.join(foreign)} in {problem.pattern!r}"
    if method != "select":
        return None
    if "n:m" not in kinds:
        return f"chooses within the groups of n:m patterns, of which {problem.pattern!r} has none"
    if (m := _nm_part(problem).m) not in SELECT_GROUPS:
        return f"chooses among {', '.join(map(str, SELECT_GROUPS))} inputs, not {m} as in {problem.pattern!r}"
    return None


def _spec(kernels: ExpandSet, method: Method) -> KernelSpec:
    skipped = "nm" if method == "select" else "unstructured"
    return KernelSpec(
        name=f"linear_{skipped}_{SHORT_DTYPES[kernels.dtype]}_{method}__{kernels.isa}",
        op="linear",
        patterns=("n:m",) if method == "select" else NATIVE_PATTERNS,
        dtype=kernels.dtype,
        isa=kernels.isa,
        layout="nchw",
        pack=partial(_pack, kernels=kernels, method=method),
        run=_run,
        cost=partial(_cost, kernels=kernels, method=method),
        why_unsupported=partial(_why_unsupported, kernels=kernels, method=method),
    )


KERNELS: tuple[KernelSpec, ...] = tuple(_spec(kernels, method) for kernels in EXPAND_SETS for method in kernels.methods)
