"""Element-wise sparsity learning as its paper has it: an L1 sub-gradient, and a threshold after every step.

Sub-gradients of an L1 norm leave no exact zeros, so weights below a threshold become zero. The threshold is smaller
for weights that are being moved: with d the last change of a weight (learning rate and momentum in it) it is

    th(|d|) = 1 / (|d| / threshold + 1 / (factor * threshold))

which is factor * threshold at rest, and half of that at |d| = 1 / factor. Weights may come back: nothing is masked.

References
----------
Park et al., Faster CNNs with Direct Sparse Convolutions and Guided Pruning, ICLR 2017, and its published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementL1:
    """The three numbers of the method.

    Attributes
    ----------
    strength : float
        Lambda, of the sub-gradient ``strength * sign(w)``.
    threshold, factor : float
        Of th(|d|).
    """

    strength: float
    threshold: float
    factor: float

    def least(self, change: Tensor) -> Tensor:
        """th(|d|): the least magnitude that stays, of the shape of `change`."""
        return 1.0 / (change.abs() / self.threshold + 1.0 / (self.factor * self.threshold))


class ThinningWeights:
    """Parameters under the method, between the backward pass and the end of the optimiser's step."""

    def __init__(self, method: ElementL1) -> None:
        self._method = method
        self._before: dict[nn.Parameter, Tensor] = {}

    @torch.no_grad()
    def before_step(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add the sub-gradient, and remember where the weights are."""
        self._before = {parameter: parameter.detach().clone() for parameter in parameters}
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.sign(), alpha=self._method.strength)

    @torch.no_grad()
    def after_step(self) -> None:
        """Cut what is below the threshold."""
        for parameter, before in self._before.items():
            parameter.mul_(parameter.abs() >= self._method.least(parameter - before))
        self._before = {}
