"""How far a native kernel may lie from float64, and the run that finds out."""

import math
from contextlib import AbstractContextManager
from unittest.mock import patch

import torch
from torch import Tensor

from sparseplan.kernels import _native, flat_sparse
from sparseplan.kernels.layout import is_in_layout
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reorder import from_layout, to_layout
from sparseplan.kernels.spec import KernelSpec

ROUNDING = 2.0**-24
"""Half a unit in the last place of float32, relative."""


def random_layer(problem: Problem, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Input, weight with random zeros, and bias."""
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(problem.weight_shape, generator=generator) >= problem.sparsity
    weight = torch.randn(problem.weight_shape, generator=generator) * keep
    x = torch.randn(problem.input_shape, generator=generator)
    return x, weight, torch.randn(problem.c_out, generator=generator)


def windows_everywhere() -> AbstractContextManager[object]:
    """Input copied by windows wherever it can be, not only where it is large."""
    return patch.multiple(flat_sparse, WHOLE_LEVEL_2=0.0, OVERLAP=math.inf, NHWC_OVERLAP=math.inf)


def exact(problem: Problem, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer in float64."""
    bias = None if bias is None else bias.double()
    if problem.op == "linear":
        return torch.nn.functional.linear(x.double(), weight[:, :, 0, 0].double(), bias)
    return torch.nn.functional.conv2d(
        x.double(), weight.double(), bias, problem.stride, problem.padding, problem.dilation, problem.groups
    )


def assert_agrees(
    spec: KernelSpec,
    problem: Problem,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """Run one kernel on scratch memory full of NaN and compare it with float64.

    Rounding errors of a sum of n terms walk randomly: they grow with sqrt(n) times the sum of magnitudes (Higham and
    Mary, A new approach to probabilistic rounding error analysis, 2019, theorem 2.4). The factor 4 is four standard
    deviations; where all terms of an output are zero the limit is zero too.
    """
    _native.fill_scratch(math.nan, torch.get_num_threads())
    added = None if residual is None else to_layout(residual, spec.layout)
    y = spec.run(spec.pack(problem, weight, bias, relu), to_layout(x, spec.layout), added)
    assert is_in_layout(y, spec.layout)
    y = from_layout(y, spec.layout, problem.n)
    expected = exact(problem, x, weight, bias)
    magnitude = exact(problem, x.abs(), weight.abs(), None if bias is None else bias.abs())
    if residual is not None:
        expected, magnitude = expected + residual, magnitude + residual.abs()
    if relu:
        expected = expected.relu()
    assert y.shape == problem.output_shape
    limit = 4.0 * ROUNDING * math.sqrt(math.prod(problem.weight_shape[1:]) + 1) * magnitude
    excess = ((y.double() - expected).abs() - limit).max().item()
    assert excess <= 0.0, f"{spec.name} exceeds its error limit by {excess:.3e}"
    return y
