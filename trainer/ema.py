"""Moving average of the weights in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of a model's parameters and buffers.

    Early averages are short: the decay after n updates is at most ``(1 + n) / (10 + n)``, as in TensorFlow's, so that
    the first random weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._decay, self._updates = decay, 0
        self._live = dict(model.state_dict(keep_vars=True))
        self._average = {name: tensor.detach().clone() for name, tensor in self._live.items()}

    @property
    def updates(self) -> int:
        """How often weights were taken in."""
        return self._updates

    @torch.no_grad()
    def update(self, masks: Mapping[nn.Parameter, Tensor]) -> None:
        """Take the present weights in.

        Parameters
        ----------
        masks : mapping
            By parameter: 0 where the average must be zero, whatever it was before.
        """
        self._updates += 1
        decay = min(self._decay, (1.0 + self._updates) / (10.0 + self._updates))
        floating = [name for name, tensor in self._average.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self._average[name] for name in floating], [self._live[name].detach() for name in floating], 1.0 - decay
        )
        for name, average in self._average.items():
            live = self._live[name]
            if not average.is_floating_point():
                average.copy_(live)
            elif isinstance(live, nn.Parameter) and live in masks:
                average.mul_(masks[live])

    def tensors(self) -> dict[str, Tensor]:
        """The average, by the names of the model."""
        return self._average

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], *, updates: int) -> None:
        """Go back to an average after so many updates."""
        self._updates = updates
        for name, average in self._average.items():
            average.copy_(tensors[name])

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and weights: between two calls the model is the average."""
        for name, average in self._average.items():
            live = self._live[name].detach()
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)
