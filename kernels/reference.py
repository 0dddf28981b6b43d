"""The plain definition of a layer, in float64: what every kernel must agree with. Never edited to match one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .problem import Dtype, Problem
from .sas import expand_for

ERROR_LIMITS: dict[Dtype, float] = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2.0**-8, "int8": 0.0}
"""Largest difference of an output from the reference, over the largest absolute reference, for up to 1024 products a
sum; the inputs are rounded to the dtype before the reference sees them.

float16: kernels sum runs of at most m = 32 products in half precision (unit roundoff u = 2**-11), and the runs in
float32. With products of mean zero and variance v, the sum after i products has variance i v, and rounding it adds an
error of variance at most u**2 i v / 3: together u**2 v m**2 / 6 a run. A sum of any length n has n / m runs, so its
error's standard deviation is u sqrt(m / 6) = 2.3 u of its own, whatever n. The largest error and the largest output are
about as many deviations away; rounding the output, and once more with a residual, adds up to u each: 4.3 u. The limit
is 8 u, as few outputs make the ratio of both maxima scatter by half. Sums of more than some 400 products kept in half
precision throughout, with sqrt(n / 6) u, exceed it.

References
----------
Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput. 41(5), 2019, section 2.
"""


def reference(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, x: Tensor, residual: Tensor | None = None
) -> Tensor:
    """The output of the layer, summed one weight position at a time.

    y[n, k, i, j] = bias[k] + sum over (c, r, s) of
    weight[k, c, r, s] * x[n, group(k) + c, i * stride + r * dilation - padding, j * stride + s * dilation - padding],
    with x = 0 outside the image, then plus residual[n, k, i, j], then ReLU if asked for. Under a SAS pattern x is the
    wide tensor of `expand_slots`.

    Parameters
    ----------
    weight : Tensor
        `problem.weight_shape`: [K, C, R, S], C the input channels per group.
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
    k_group, c_group = problem.c_out // groups, problem.weight_shape[1]
    pad_h, pad_w = problem.padding
    image = expand_for(problem, x).double().reshape(n, groups, c_group, problem.h_in, problem.w_in)
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

    A result of fewer bits is rounded once at the end, so its error does not grow: the sums are kept in 32 bits. Those
    of float16 are, but for short runs.
    """
    if problem.dtype != "float32":
        return ERROR_LIMITS[problem.dtype]
    return ERROR_LIMITS["float32"] * max(1.0, math.sqrt(math.prod(problem.weight_shape[1:]) / 1024.0))


def relative_error(y: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value; infinite where `y` holds NaN."""
    difference = float((y.double() - expected).abs().max())
    if math.isnan(difference):
        return math.inf
    return 0.0 if difference == 0.0 else difference / max(float(expected.abs().max()), 1e-300)
