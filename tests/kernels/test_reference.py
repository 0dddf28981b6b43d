"""The reference against its definition, written out as loops."""

import math

import numpy as np
import pytest
import torch

from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import error_limit, reference, relative_error

PROBLEMS = (
    Problem(
        op="conv2d",
        n=2,
        c_in=4,
        c_out=6,
        h_in=5,
        w_in=7,
        kernel=(3, 2),
        stride=(2, 1),
        padding=(1, 2),
        dilation=(1, 2),
        groups=2,
    ),
    Problem(op="conv2d", n=1, c_in=3, c_out=3, h_in=4, w_in=3, kernel=(2, 2), groups=3),
    Problem(op="linear", n=3, c_in=5, c_out=2),
)


def _loops(problem: Problem, weight: np.ndarray, bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    x = x.reshape(problem.n, problem.c_in, problem.h_in, problem.w_in)
    y = np.zeros((problem.n, problem.c_out, problem.h_out, problem.w_out))
    c_group, k_group = problem.c_in // problem.groups, problem.c_out // problem.groups
    for n, k, i, j in np.ndindex(y.shape):
        total = bias[k]
        for c, r, s in np.ndindex(weight.shape[1:]):
            row = i * problem.stride[0] + r * problem.dilation[0] - problem.padding[0]
            column = j * problem.stride[1] + s * problem.dilation[1] - problem.padding[1]
            if 0 <= row < problem.h_in and 0 <= column < problem.w_in:
                total += weight[k, c, r, s] * x[n, (k // k_group) * c_group + c, row, column]
        y[n, k, i, j] = max(total, 0.0)
    return y.reshape(problem.output_shape)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_reference_is_the_definition(problem: Problem) -> None:
    generator = np.random.default_rng(0)
    weight, bias = generator.normal(size=problem.weight_shape), generator.normal(size=problem.c_out)
    x = generator.normal(size=problem.input_shape)
    y = reference(problem, torch.from_numpy(weight), torch.from_numpy(bias), True, torch.from_numpy(x))
    assert y.dtype == torch.float64
    np.testing.assert_allclose(y.numpy(), _loops(problem, weight, bias, x), rtol=1e-12, atol=1e-12)


def test_without_bias_and_relu() -> None:
    problem = Problem(op="linear", n=1, c_in=2, c_out=2)
    weight = torch.tensor([[1.0, 2.0], [-3.0, 0.0]]).view(2, 2, 1, 1)
    assert reference(problem, weight, None, False, torch.tensor([[1.0, 1.0]])).tolist() == [[3.0, -3.0]]


def test_relative_error() -> None:
    expected = torch.tensor([2.0, -4.0], dtype=torch.float64)
    assert relative_error(torch.tensor([2.0, -3.0]), expected) == 0.25
    assert relative_error(torch.tensor([2.0, math.nan]), expected) == math.inf
    assert relative_error(torch.zeros(2), torch.zeros(2, dtype=torch.float64)) == 0.0


def test_error_limits() -> None:
    short, long = (Problem(op="linear", n=1, c_in=c, c_out=1) for c in (1024, 4096))
    assert error_limit(short) == 1e-5
    assert error_limit(long) == pytest.approx(2e-5)
    assert error_limit(Problem(op="linear", n=1, c_in=4096, c_out=1, dtype="bfloat16")) == 2e-2
    assert error_limit(Problem(op="linear", n=1, c_in=4096, c_out=1, dtype="float16")) == 2.0**-8
