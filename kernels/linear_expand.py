"""Sparse linear layer for small batches: compressed weights are expanded in registers, lanes along the input.

At small batch a layer takes as long as its weights take to arrive. Both formats store the values that are not zero, in
order, and few bits beside them:

- "expand": one bit a weight says where the next values belong (VPEXPAND); any zero is skipped.
- "select": for n of m weights. A vector of values holds one value for each group of m inputs and log2(m) bits say which
  of the m inputs it multiplies; the input is dealt out once into m vectors that blends choose from. No multiplication
  is spent on zeros.

A weight of zero skips its input also where that is infinite or NaN.

References
----------
Zhang et al., SparTA / Flash-LLM style load-as-sparse, compute-as-dense products are the nearest published relatives:
Xia et al., Flash-LLM: enabling cost-effective and highly-efficient large generative model inference with unstructured
sparsity, VLDB 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor  # before _native: the extension must share torch's OpenMP runtime

from . import _native
from .dense import SHORT_DTYPES, TORCH_DTYPES, UNITS
from .errors import InputError
from .native_layer import NATIVE_PATTERNS, check_weights, to_numpy
from .pattern import NmPart, parse_pattern
from .problem import DTYPE_BYTES, Dtype, Problem
from .spec import Cost, KernelSpec, Machine

Method = Literal["expand", "select"]

ROWS = 4
"""Outputs that share the loads of the input: a block of rows, as in ``native/expand/plan.h``."""
SAMPLES = 4
"""Samples that share one pass over the weights."""
SELECT_GROUPS = (2, 4, 8)
"""Inputs that "select" can choose from."""
MOST_SAMPLES = 32
"""Beyond this batch the arithmetic of a dense kernel, and its reuse of weights, wins at any sparsity."""
LINE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandSet:
    """What the kernels of one instruction set work on: dtype, and values in a vector."""

    isa: str
    dtype: Dtype
    lanes: int


EXPAND_SETS = (
    ExpandSet(isa="avx512bf16", dtype="bfloat16", lanes=32),
    ExpandSet(isa="avx512", dtype="float32", lanes=16),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedExpand:
    """Weights ready to run, for exactly one problem."""

    problem: Problem
    native: _native.ExpandSparse


def _group(problem: Problem, method: Method) -> int:
    """Inputs that one value chooses from; 1 where bits place the values."""
    return 1 if method == "expand" else _nm_part(problem).m


def _nm_part(problem: Problem) -> NmPart:
    return next(part for part in parse_pattern(problem.pattern).parts if isinstance(part, NmPart))


def _pack(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, kernels: ExpandSet, method: Method
) -> PackedExpand:
    check_weights(problem, weight, bias)
    native = _native.ExpandSparse(
        isa=kernels.isa,
        group=_group(problem, method),
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
        If `x` or `residual` does not have the shape and dtype of the problem.
    """
    problem = packed.problem
    dtype = TORCH_DTYPES[problem.dtype]
    _check("input", x, problem.input_shape, dtype)
    x = x.contiguous()
    y = torch.empty(problem.output_shape, dtype=dtype)
    added = 0
    if residual is not None:
        _check("residual", residual, problem.output_shape, dtype)
        if not residual.is_contiguous():
            raise InputError(f"residual is strided {residual.stride()}; give it the memory order of the output")
        added = residual.data_ptr()
    packed.native.run(x.data_ptr(), x.nbytes, added, y.data_ptr(), y.nbytes, torch.get_num_threads())
    return y


def _check(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype or tensor.device.type != "cpu":
        raise InputError(
            f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device.type}; "
            f"the packed problem needs {dtype} {list(shape)} on cpu"
        )


def _cost(problem: Problem, *, kernels: ExpandSet, method: Method) -> Cost:
    """Padding to vectors and blocks included; "expand" multiplies the zeros, too."""
    blocks = math.ceil(problem.c_out / ROWS)
    group = _group(problem, method)
    inputs = math.ceil(problem.c_in / (kernels.lanes * group)) * kernels.lanes * group
    value_bytes = DTYPE_BYTES[problem.dtype]
    positions = float(blocks * ROWS * inputs)
    if method == "expand":
        values, products, bits = problem.weight_count * (1.0 - problem.sparsity), positions, positions
    else:
        values = products = positions * _nm_part(problem).n / group
        bits = values * math.log2(group)
    weights = values * value_bytes + bits / 8.0
    passes = problem.n // SAMPLES + (problem.n % SAMPLES).bit_count()
    # The lines of a stream of values are read once or twice, as a vector of them seldom starts on a line.
    loads = positions / kernels.lanes * LINE_BYTES if method == "expand" else values * value_bytes
    dealt = float(problem.n * inputs * value_bytes)
    return Cost(
        unit=UNITS[problem.dtype],
        flop=2.0 * products * problem.n,
        bytes_streamed=(loads + bits / 8.0) * passes + dealt * blocks,
        bytes_moved=problem.input_bytes + problem.output_bytes + weights + 2.0 * dealt,
        tasks=blocks,
    )


def _why_unsupported(problem: Problem, machine: Machine, *, kernels: ExpandSet, method: Method) -> str | None:
    if problem.op != "linear":
        return f"runs linear, not {problem.op}"
    if problem.dtype != kernels.dtype:
        return f"computes in {kernels.dtype}, not {problem.dtype}"
    if kernels.isa not in machine.isa:
        return f"needs {kernels.isa}, this machine allows {', '.join(machine.isa) or 'no CPU instruction set'}"
    if problem.n > MOST_SAMPLES:
        return f"batch {problem.n} exceeds {MOST_SAMPLES}, beyond which a dense kernel is faster"
    kinds = parse_pattern(problem.pattern).kinds
    if not kinds:
        return "pattern 'dense' leaves nothing to skip"
    if method == "select":
        if "n:m" not in kinds:
            return f"chooses among the inputs of n:m groups, which {problem.pattern!r} has not"
        if _nm_part(problem).m not in SELECT_GROUPS:
            allowed = ", ".join(map(str, SELECT_GROUPS))
            return f"chooses among {allowed} inputs, not {_nm_part(problem).m} as in {problem.pattern!r}"
    if foreign := [kind for kind in kinds if kind not in NATIVE_PATTERNS]:
        return f"skips zero weights in {', '.join(NATIVE_PATTERNS)}, not {', '.join(foreign)} in {problem.pattern!r}"
    return None


def _spec(kernels: ExpandSet, method: Method) -> KernelSpec:
    skipped = "unstructured" if method == "expand" else "nm"
    return KernelSpec(
        name=f"linear_{skipped}_{SHORT_DTYPES[kernels.dtype]}_{method}__{kernels.isa}",
        op="linear",
        patterns=NATIVE_PATTERNS if method == "expand" else ("n:m",),
        dtype=kernels.dtype,
        isa=kernels.isa,
        layout="nchw",
        pack=partial(_pack, kernels=kernels, method=method),
        run=_run,
        cost=partial(_cost, kernels=kernels, method=method),
        why_unsupported=partial(_why_unsupported, kernels=kernels, method=method),
    )


_METHODS: tuple[Method, ...] = ("expand", "select")

KERNELS: tuple[KernelSpec, ...] = tuple(_spec(kernels, method) for kernels in EXPAND_SETS for method in _METHODS)
