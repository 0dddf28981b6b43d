"""Weights behind a mask that go on learning: the network computes with zeros, the optimiser sees the dense weights.

Two methods need this. SR-STE (Zhou et al., ICLR 2021, equation 9) finds N:M masks while training:

    W <- W - lr * (g(E * W) + decay * (1 - E) * W)

with the mask E made anew from W; dynamic network surgery (Guo et al., NIPS 2016) is the same for single weights without
the decay, with a mask that lets weights return. In both the gradient of the masked network, g, goes to all weights.

Between two steps the parameter holds E * W, so that evaluation, checkpoints and teachers see the zeros; what is masked,
(1 - E) * W, waits here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MaskOf = Callable[[Tensor, Tensor], Tensor]
"""From the dense weights and the present mask, in the shape of the parameter, to the next mask."""


@dataclass(slots=True, kw_only=True, eq=False)
class HiddenWeights:
    """The masked part of one parameter.

    Attributes
    ----------
    mask : Tensor
        Of the parameter's shape and dtype, 0 and 1; shared with whoever holds the layer, changed in place.
    decay : float
        Pull of hidden weights towards zero, SR-STE's; 0 for surgery.
    """

    parameter: nn.Parameter
    mask: Tensor
    mask_of: MaskOf
    decay: float = 0.0
    values: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.values = torch.zeros_like(self.parameter, requires_grad=False)

    @torch.no_grad()
    def before_step(self) -> None:
        """Between the backward pass and the optimiser's step: show the optimiser all weights."""
        if self.parameter.grad is not None and self.decay > 0.0:
            self.parameter.grad.add_(self.values, alpha=self.decay)
        self.parameter.add_(self.values)

    @torch.no_grad()
    def after_step(self, *, renew: bool) -> None:
        """Hide the masked weights again, under a new mask where `renew` says so."""
        if renew:
            self.mask.copy_(self.mask_of(self.parameter, self.mask))
        torch.mul(self.parameter, 1.0 - self.mask, out=self.values)
        self.parameter.mul_(self.mask)

    @torch.no_grad()
    def reveal(self) -> None:
        """Put all weights back, for good."""
        self.parameter.add_(self.values)
        self.values.zero_()
