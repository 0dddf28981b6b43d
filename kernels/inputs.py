"""What one run of a kernel needs, random but rounded to the problem's dtype, and the right answer to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .dense import TORCH_DTYPES
from .problem import Problem
from .quantisation import Quantisation, choose_scale, quantise
from .reference import reference
from .reference_int8 import reference_int8
from .reorder import to_layout
from .spec import KernelSpec

X_RANGE = (-2.0, 3.0)
"""Real inputs that int8 stores: most of a normal variable, with a zero point that is not the middle."""
Y_DEVIATIONS = 4.0
RESIDUAL_STEPS = 32.0
"""Standard deviation of a stored residual: small enough that its sum with an output is seldom cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInputs:
    """A layer, an input of it, and what is added to its output.

    Attributes
    ----------
    weight : Tensor
        float32, [K, C, R, S], representable in the problem's dtype (int8: any real numbers).
    bias : Tensor or None
        float32, [K], likewise.
    x : Tensor
        Of the problem's dtype and `problem.input_shape`, contiguous.
    quantisation : Quantisation or None
        Of an int8 problem.
    residual : Tensor or None
        Of the problem's dtype and `problem.output_shape`, contiguous; int8 stores it as it does the output.
    """

    problem: Problem
    weight: Tensor
    bias: Tensor | None
    relu: bool
    x: Tensor
    quantisation: Quantisation | None
    residual: Tensor | None = None

    def pack(self, kernel: KernelSpec) -> Any:
        """What `kernel.pack` makes of the layer."""
        layer = (self.problem, self.weight, self.bias, self.relu)
        return kernel.pack(*layer) if self.quantisation is None else kernel.pack(*layer, self.quantisation)

    def x_for(self, kernel: KernelSpec) -> Tensor:
        """The input in the kernel's layout."""
        return to_layout(self.x, kernel.layout)

    def residual_for(self, kernel: KernelSpec) -> Tensor | None:
        """The residual in the kernel's layout."""
        return None if self.residual is None else to_layout(self.residual, kernel.layout)

    def on(self, device: torch.device) -> LayerInputs:
        """The same layer and input on another device."""
        bias, residual = (None if taken is None else taken.to(device) for taken in (self.bias, self.residual))
        return replace(self, weight=self.weight.to(device), bias=bias, x=self.x.to(device), residual=residual)

    def with_residual(self, generator: torch.Generator) -> LayerInputs:
        """The same layer with a normal random residual."""
        residual = torch.randn(self.problem.output_shape, generator=generator)
        if self.quantisation is None:
            return replace(self, residual=residual.to(TORCH_DTYPES[self.problem.dtype]))
        scale, zero_point = self.quantisation.y_scale, self.quantisation.y_zero_point
        return replace(self, residual=quantise(residual * RESIDUAL_STEPS * scale, scale, zero_point))

    def expected(self) -> Tensor:
        """The right output, as float64, `problem.output_shape`; bytes for an int8 problem."""
        layer = (self.problem, self.weight, self.bias, self.relu, self.x)
        if self.quantisation is None:
            return reference(*layer, self.residual)
        return reference_int8(*layer, quantisation=self.quantisation, residual=self.residual).double()


def random_inputs(problem: Problem, weight: Tensor, generator: torch.Generator) -> LayerInputs:
    """Normal random input and bias for a weight, with ReLU as in a network.

    Parameters
    ----------
    weight : Tensor
        float32, [K, C, R, S]; rounded here, before a reference sees it, so that an error is the kernel's own.
    """
    bias = torch.randn(problem.c_out, generator=generator)
    x = torch.randn(problem.input_shape, generator=generator)
    if problem.dtype != "int8":
        dtype = TORCH_DTYPES[problem.dtype]
        return LayerInputs(
            problem=problem,
            weight=weight.to(dtype).float(),
            bias=bias.to(dtype).float(),
            relu=True,
            x=x.to(dtype),
            quantisation=None,
        )
    quantisation = plausible_quantisation(weight, bias)
    x = quantise(x, quantisation.x_scale, quantisation.x_zero_point)
    return LayerInputs(problem=problem, weight=weight, bias=bias, relu=True, x=x, quantisation=quantisation)


def plausible_quantisation(weight: Tensor, bias: Tensor) -> Quantisation:
    """A quantisation for normal inputs: some stored outputs are cut off at either end, as in a trained network."""
    variance = weight.flatten(1).square().sum(1) + bias.square()
    reach = Y_DEVIATIONS * float(variance.mean().sqrt()) + 1e-6
    x_scale, x_zero_point = choose_scale(*X_RANGE)
    y_scale, y_zero_point = choose_scale(-0.4 * reach, 0.6 * reach)
    return Quantisation(x_scale=x_scale, x_zero_point=x_zero_point, y_scale=y_scale, y_zero_point=y_zero_point)
