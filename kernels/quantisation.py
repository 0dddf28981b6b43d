"""int8 layers in integers alone: how numbers are stored, and how sums become outputs.

An activation is an unsigned byte, ``real = scale * (stored - zero_point)``. A weight is a signed byte in [-127, 127],
``real = scale_k * stored``, one scale an output channel, so a pruned weight is exactly zero. A sum of products is an
int32 in units of ``x_scale * scale_k``; with the fixed-point number ``multiplier_k / 2 ** shift_k`` near
``x_scale * scale_k / y_scale`` an output is

    sum = bias_k + sum over (c, r, s) of weight[k, c, r, s] * (x[...] - x_zero_point)
    y   = clamp(floor((sum * multiplier_k + 2 ** (shift_k - 1)) / 2 ** shift_k) + other, low, 255)

in 64-bit integers: ties round up. `other` is y_zero_point, or the stored residual, whose quantisation is that of y
(``y_zero_point + residual - y_zero_point``); `low` is y_zero_point with ReLU and 0 without. Outside the image x is
x_zero_point, the stored zero.

References
----------
Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018,
sections 2.1 to 2.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import InputError
from .problem import Problem

STORED_MAX = 255
WEIGHT_MAX = 127
"""-128 stays unused: the range is symmetric."""
BIAS_MAX = 2**30
PRODUCTS_MAX = (2**31 - 1 - BIAS_MAX) // (STORED_MAX * WEIGHT_MAX)
"""Products a sum may have, C * R * S, so that with any bias it stays an int32: 33155."""
RATIO_MAX = 2.0**29
"""Of the step of the sums over that of the outputs, so that a shift is at least 1; a sum of 1 is far beyond 255."""
SHIFT_MAX = 62
"""A product of two 31-bit numbers plus half of 2 ** 62 stays an int64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """How input and output of an int8 layer are stored; a residual is stored as the output is.

    Raises
    ------
    InputError
        If a scale is not a positive finite number or a zero point not in [0, 255].
    """

    x_scale: float
    x_zero_point: int
    y_scale: float
    y_zero_point: int

    def __post_init__(self) -> None:
        for name in ("x_scale", "y_scale"):
            scale = getattr(self, name)
            if not (math.isfinite(scale) and scale > 0.0):
                raise InputError(f"quantisation {name}: got {scale!r}, allowed is a positive finite number")
        for name in ("x_zero_point", "y_zero_point"):
            zero_point = getattr(self, name)
            if not 0 <= zero_point <= STORED_MAX:
                raise InputError(f"quantisation {name}: got {zero_point!r}, allowed is 0 to {STORED_MAX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedLayer:
    """The integers of a layer.

    Attributes
    ----------
    weight : array
        int8, [K, C, R, S].
    bias : array
        int32, [K], in units of x_scale * scale_k.
    multiplier, shift : array
        int32, [K]; 0 <= multiplier < 2 ** 31 and 1 <= shift <= 62.
    x_zero_point, y_zero_point, low : int
        Bytes.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    shift: NDArray[np.int32]
    x_zero_point: int
    y_zero_point: int
    low: int

    def folded_bias(self) -> NDArray[np.int32]:
        """int32, [K]: what a sum over stored inputs starts from, bias - x_zero_point * (sum of the weights)."""
        sums = self.weight.reshape(len(self.weight), -1).sum(axis=1, dtype=np.int64)
        return (self.bias - self.x_zero_point * sums).astype(np.int32)

    def scaled_bias(self) -> NDArray[np.int64]:
        """int64, [K]: the bias alone in steps of the output, before `other` is added and the sum is clamped."""
        half = np.left_shift(np.int64(1), self.shift.astype(np.int64) - 1)
        return (self.bias.astype(np.int64) * self.multiplier + half) >> self.shift


def choose_scale(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point that store the range [low, high], widened to hold zero exactly.

    Raises
    ------
    InputError
        If an end is not finite or `low` exceeds `high`.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputError(f"range of activations: got [{low}, {high}], allowed are finite ends in order")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / STORED_MAX or 1.0
    return scale, round(-low / scale)


def choose_quantisation(x: Tensor, y: Tensor) -> Quantisation:
    """The quantisation of a layer whose real inputs and outputs look like `x` and `y`: their ranges."""
    (x_scale, x_zero_point), (y_scale, y_zero_point) = (
        choose_scale(float(values.min()), float(values.max())) for values in (x, y)
    )
    return Quantisation(x_scale=x_scale, x_zero_point=x_zero_point, y_scale=y_scale, y_zero_point=y_zero_point)


def quantise(values: Tensor, scale: float, zero_point: int) -> Tensor:
    """The nearest stored bytes (ties to even, of the float32 quotient), torch.uint8; the memory order stays."""
    return values.float().mul(1.0 / scale).round_().add_(zero_point).clamp_(0, STORED_MAX).to(torch.uint8)


def dequantise(stored: Tensor, scale: float, zero_point: int) -> Tensor:
    """The real numbers, float32, that bytes stand for."""
    return stored.float().sub(zero_point).mul(scale)


def quantise_layer(weight: Tensor, bias: Tensor | None, relu: bool, quantisation: Quantisation) -> QuantisedLayer:
    """Turn a layer into integers.

    The scale of an output channel is max |w| / 127, or more where the bias would not fit into 31 bits: such a channel
    has weights that hardly count beside its bias.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S], finite.
    bias : Tensor or None
        [K], finite.

    Raises
    ------
    InputError
        If a weight or a bias is not finite, or x_scale * scale_k / y_scale is `RATIO_MAX` or more for some channel.
    """
    rows = weight.detach().double().reshape(len(weight), -1).numpy()
    real_bias = np.zeros(len(rows)) if bias is None else bias.detach().double().numpy()
    if not (np.isfinite(rows).all() and np.isfinite(real_bias).all()):
        raise InputError("weight or bias holds NaN or infinity; int8 needs finite numbers")
    scale = np.maximum(np.abs(rows).max(axis=1) / WEIGHT_MAX, np.abs(real_bias) / (quantisation.x_scale * BIAS_MAX))
    scale[scale == 0.0] = 1.0
    ratio = quantisation.x_scale * scale / quantisation.y_scale
    if ratio.max() >= RATIO_MAX:
        raise InputError(
            f"y_scale {quantisation.y_scale} is too fine for sums of step {ratio.max() * quantisation.y_scale:.3g}; "
            "choose it from the range of the outputs"
        )
    multiplier, shift = _fixed_point(ratio)
    return QuantisedLayer(
        weight=np.rint(rows / scale[:, None]).astype(np.int8).reshape(weight.shape),
        bias=np.rint(real_bias / (quantisation.x_scale * scale)).astype(np.int32),
        multiplier=multiplier,
        shift=shift,
        x_zero_point=quantisation.x_zero_point,
        y_zero_point=quantisation.y_zero_point,
        low=quantisation.y_zero_point if relu else 0,
    )


def why_sums_overflow(problem: Problem) -> str | None:
    """The reason why sums of a problem may leave int32, or None."""
    products = math.prod(problem.weight_shape[1:])
    if products > PRODUCTS_MAX:
        return f"sums of {products} products may overflow 32 bits, the limit is {PRODUCTS_MAX}"
    return None


def _fixed_point(ratio: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """multiplier and shift, with 31 significant bits unless that takes a shift beyond `SHIFT_MAX`."""
    fraction, exponent = np.frexp(ratio)
    shift = 31 - exponent
    # A fraction that rounds up to 2 ** 31 is one half with the next exponent.
    shift -= np.rint(fraction * 2.0**31) == 2.0**31
    shift = np.minimum(shift, SHIFT_MAX)
    return np.rint(np.ldexp(ratio, shift)).astype(np.int32), shift.astype(np.int32)
