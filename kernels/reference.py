"""The plain definition of a layer, in float64: what every kernel must agree with. Never edited to match one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .problem import Dtype, Problem

ERROR_LIMITS: dict[Dtype, float] = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3, "int8": 0.0}
"""Largest difference of an output from the reference, over the largest absolute reference, for up to 1024 products a
sum; the inputs are rounded to the dtype before the reference sees them."""


def reference(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, x: Tensor, residual: Tensor | None = None
) -> Tensor:
    """The output of the layer, summed one weight position at a time.

    y[n, k, i, j] = bias[k] + sum over (c, r, s) of
    weight[k, c, r, s] * x[n, group(k) + c, i * stride + r * dilation - padding, j * stride + s * dilation - padding],
    with x = 0 outside the image, then plus residual[n, k, i, j], then ReLU if asked for.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S], C the input channels per group.
    bias : Tensor or None
        [K].
    x : Tensor
        `problem.input_shape`; any memory order, any floating dtype.
    residual : Tensor or None
        `problem.output_shape`, likewise.

    Returns
    -------
    Tensor
        float64, `problem.output_shape`.
    """
    n, groups = problem.n, problem.groups
    k_group, c_group = problem.c_out // groups, problem.c_in // groups
    pad_h, pad_w = problem.padding
    image = x.double().reshape(n, groups, c_group, problem.h_in, problem.w_in)
    padded = image.new_zeros(n, groups, c_group, problem.h_in + 2 * pad_h, problem.w_in + 2 * pad_w)
    padded[..., pad_h : pad_h + problem.h_in, pad_w : pad_w + problem.w_in] = image
    filters = weight.double().reshape(groups, k_group, c_group, *problem.kernel)
    y = image.new_zeros(n, groups, k_group, problem.h_out, problem.w_out)
    for r in range(problem.kernel[0]):
        for s in range(problem.kernel[1]):
            top, left = r * problem.dilation[0], s * problem.dilation[1]
            rows = slice(top, top + (problem.h_out - 1) * problem.stride[0] + 1, problem.stride[0])
            columns = slice(left, left + (problem.w_out - 1) * problem.stride[1] + 1, problem.stride[1])
            y += torch.einsum("ngchw,gkc->ngkhw", padded[..., rows, columns], filters[..., r, s])
    if bias is not None:
        y += bias.double().reshape(1, groups, k_group, 1, 1)
    if residual is not None:
        y += residual.double().reshape(y.shape)
    if relu:
        y.clamp_(min=0.0)
    return y.reshape(problem.output_shape)


def error_limit(problem: Problem) -> float:
    """The error limit of the problem's dtype; that of float32 grows with the root of the length of the sums.

    A bfloat16 result is rounded once at the end, so its error does not grow: the sums are kept in float32.
    """
    if problem.dtype == "bfloat16":
        return ERROR_LIMITS["bfloat16"]
    return ERROR_LIMITS["float32"] * max(1.0, math.sqrt(math.prod(problem.weight_shape[1:]) / 1024.0))


def relative_error(y: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value; infinite where `y` holds NaN."""
    difference = float((y.double() - expected).abs().max())
    if math.isnan(difference):
        return math.inf
    return 0.0 if difference == 0.0 else difference / max(float(expected.abs().max()), 1e-300)
