"""Sparse matrix products of torch and scipy (CSR), as kernels that the registry does not ship.

A convolution is unrolled first (im2col, `torch.nn.functional.unfold`), and that is timed too; a 1x1 convolution of
stride 1 needs none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor

from sparseplan.kernels.pattern import SasPart, parse_pattern
from sparseplan.kernels.problem import Op, Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.spec import Cost, KernelSpec, Machine

INDEX_BYTES = 4.0
"""Of scipy's columns; torch's are as wide or wider."""

Product = Callable[[Any, Tensor], Tensor]
"""``product(matrix, columns) -> [K, pixels]`` for a CSR matrix [K, C * R * S] and [C * R * S, pixels]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCsr:
    """A CSR matrix [K, C * R * S] and the layer that it is the weight of."""

    matrix: Any
    bias: Tensor
    """[K, 1]."""
    relu: bool
    problem: Problem


def _torch_matrix(weight: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return weight.to_sparse_csr()


def _scipy_matrix(weight: Tensor) -> Any:
    return scipy.sparse.csr_matrix(weight.numpy())


def _torch_product(matrix: Tensor, columns: Tensor) -> Tensor:
    return matrix @ columns


def _scipy_product(matrix: Any, columns: Tensor) -> Tensor:
    return torch.from_numpy(matrix @ columns.numpy())


def _pack(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, to_csr: Callable[[Tensor], Any]
) -> PackedCsr:
    column = torch.zeros(problem.c_out, 1) if bias is None else bias.detach()[:, None]
    return PackedCsr(matrix=to_csr(weight.detach().reshape(problem.c_out, -1)), bias=column, relu=relu, problem=problem)


def _finish(packed: PackedCsr, y: Tensor, residual: Tensor | None, bias: Tensor) -> Tensor:
    y = y.add_(bias)
    if residual is not None:
        y = y.add_(residual)
    return y.relu_() if packed.relu else y


def _run_linear(packed: PackedCsr, x: Tensor, residual: Tensor | None = None, *, product: Product) -> Tensor:
    y = product(packed.matrix, x.t().contiguous()).t().contiguous()
    return _finish(packed, y, residual, packed.bias.view(1, -1))


def _run_conv2d(packed: PackedCsr, x: Tensor, residual: Tensor | None = None, *, product: Product) -> Tensor:
    problem = packed.problem
    if problem.kernel == (1, 1) and problem.stride == (1, 1) and problem.padding == (0, 0):
        columns = x.flatten(2)
    else:
        columns = F.unfold(x, problem.kernel, problem.dilation, problem.padding, problem.stride)
    y = torch.stack([product(packed.matrix, image) for image in columns]).view(problem.output_shape)
    return _finish(packed, y, residual, packed.bias.view(1, -1, 1, 1))


def _cost(problem: Problem) -> Cost:
    """Each non-zero reads a row of the columns, and reads and writes a row of the sums."""
    pixels = problem.n * problem.h_out * problem.w_out
    nonzeros = problem.weight_count * (1.0 - problem.sparsity)
    columns = 4.0 * math.prod(problem.weight_shape[1:]) * pixels
    copied = columns if math.prod(problem.kernel) > 1 else 0.0
    return Cost(
        unit="fma_f32",
        flop=2.0 * nonzeros * pixels,
        bytes_streamed=12.0 * nonzeros * pixels,
        bytes_moved=problem.input_bytes + problem.output_bytes + nonzeros * (4.0 + INDEX_BYTES) + 2.0 * copied,
        tasks=problem.c_out,
    )


def _why_unsupported(problem: Problem, machine: Machine, *, single_threaded: bool) -> str | None:
    if machine.device != "cpu" or problem.dtype != "float32":
        return "the sparse products of torch and scipy run float32 on the CPU"
    if problem.groups > 1:
        return f"one matrix product needs one group, the problem has {problem.groups}"
    if any(isinstance(part, SasPart) for part in parse_pattern(problem.pattern).parts):
        return "skips zero weights, not zero activations"
    if single_threaded and problem.threads > 1:
        return "scipy multiplies on one thread"
    return None


def _rival(
    op: Op, library: str, to_csr: Callable[[Tensor], Any], product: Product, *, single_threaded: bool
) -> KernelSpec:
    method = "im2colcsr" if op == "conv2d" else "csr"
    return KernelSpec(
        name=f"{op}_unstructured_f32_{method}__{library}",
        op=op,
        patterns=("unstructured", "block", "n:m", "filter", "channel", "shape", "filter2d"),
        dtype="float32",
        isa="any",
        layout="nchw",
        pack=partial(_pack, to_csr=to_csr),
        run=partial(_run_conv2d if op == "conv2d" else _run_linear, product=product),
        cost=_cost,
        why_unsupported=partial(_why_unsupported, single_threaded=single_threaded),
    )


RIVALS = tuple(
    _rival(op, library, to_csr, product, single_threaded=library == "scipy")
    for op in ("conv2d", "linear")
    for library, to_csr, product in (
        ("torch", _torch_matrix, _torch_product),
        ("scipy", _scipy_matrix, _scipy_product),
    )
)

CONTESTANTS = (*REGISTRY, *RIVALS)
"""All kernels that are measured."""

VECTOR_WIDTHS = ("avx512", "avx2", "baseline")
"""Instruction sets of which the kernels of a later one are there for machines without the earlier ones."""


def widest_kernels(machine: Machine) -> tuple[str, ...]:
    """Names of all contestants but those for narrower vectors than the machine has."""
    widest = next((isa for isa in VECTOR_WIDTHS if isa in machine.isa), None)
    return tuple(kernel.name for kernel in CONTESTANTS if kernel.isa == widest or kernel.isa not in VECTOR_WIDTHS)
