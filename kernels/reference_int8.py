"""The plain definition of an int8 layer: what every int8 kernel must equal, bit by bit. Never edited to match one."""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import Problem
from .quantisation import STORED_MAX, Quantisation, quantise_layer
from .reference import reference


def reference_int8(
    problem: Problem,
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    x: Tensor,
    *,
    quantisation: Quantisation,
    residual: Tensor | None = None,
) -> Tensor:
    """The output of the layer in 64-bit integers; the formula is that of `quantisation`.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S], real numbers.
    bias : Tensor or None
        [K], real numbers.
    x : Tensor
        uint8, `problem.input_shape`; any memory order.
    residual : Tensor or None
        uint8, `problem.output_shape`.

    Returns
    -------
    Tensor
        uint8, `problem.output_shape`.
    """
    layer = quantise_layer(weight, bias, relu, quantisation)
    per_channel = (1, problem.c_out, *[1] * (len(problem.output_shape) - 2))
    # Exact: the products are integers and their sums stay below 2 ** 53.
    centred = x.double() - layer.x_zero_point
    sums = reference(problem, torch.from_numpy(layer.weight), None, False, centred).long()
    sums += torch.from_numpy(layer.bias).long().view(per_channel)
    multiplier, shift = (
        torch.from_numpy(values).long().view(per_channel) for values in (layer.multiplier, layer.shift)
    )
    half = torch.bitwise_left_shift(torch.ones_like(shift), shift - 1)
    scaled = torch.bitwise_right_shift(sums * multiplier + half, shift)
    other = layer.y_zero_point if residual is None else residual.long()
    return (scaled + other).clamp(layer.low, STORED_MAX).to(torch.uint8)
