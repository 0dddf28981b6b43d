"""Layers under structured activation sparsification: trained over all slots of their input, one of m non-zero.

`kernels.sas` defines the slots. Training needs no tensor of m times the channels for m = 2: the layer is
``W+ relu(x) + W- relu(-x)``, two layers of the narrow width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.sas import SlotLayer, expand_slots, widen_weight

SasKind = Literal["relu", "relu6", "smooth"]
"""What the activation before the layer was: ReLU and ReLU6 go away, GELU and SiLU stay."""

_LIMIT = 6.0
"""Of ReLU6."""


class SasLayer(SlotLayer, ABC):
    """What convolutions and linears under SAS share.

    Parameters
    ----------
    layer : nn.Module
        The layer that is replaced; its weight is widened such that the outputs stay the same.
    slots : int
        m; a power of two.
    kind : str
        "relu" takes the input of the ReLU, "relu6" also clamps it to [-6, 6], "smooth" takes the output of GELU or
        SiLU, whose sign is that of their input.
    threshold : bool
        Learn where each channel changes its slot, from 0: what reviewers of the paper saw oscillate around it.
    """

    _channel_axis = 1

    def __init__(
        self, layer: nn.Conv1d | nn.Conv2d | nn.Linear, *, slots: int, kind: SasKind, threshold: bool = False
    ) -> None:
        super().__init__()
        self.slots, self.kind = slots, kind
        self.groups = getattr(layer, "groups", 1)
        channels = layer.weight.shape[1] * self.groups
        self.weight = nn.Parameter(_wide_start(layer.weight.detach(), slots, kind))
        self.bias = layer.bias
        self.threshold = nn.Parameter(torch.zeros(channels)) if threshold else None

    def forward(self, x: Tensor) -> Tensor:
        if self.threshold is not None:
            x = x - self.threshold.view([-1] + [1] * (x.dim() - 1 - self._channel_axis % x.dim()))
        if self.kind == "relu6":
            x = x.clamp(-_LIMIT, _LIMIT)
        return self._over_slots(x)

    @abstractmethod
    def _over_slots(self, x: Tensor) -> Tensor:
        """The layer over the slots of its input."""

    def extra_repr(self) -> str:
        return f"slots={self.slots}, kind={self.kind}, weight={list(self.weight.shape)}"


class _SasConv(SasLayer):
    def __init__(self, layer: nn.Conv1d | nn.Conv2d, *, slots: int, kind: SasKind, threshold: bool = False) -> None:
        super().__init__(layer, slots=slots, kind=kind, threshold=threshold)
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise InputError(
                f"SAS needs zero padding given as numbers, got {layer.padding_mode!r} and {layer.padding!r}"
            )
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve = nn.functional.conv2d if weight.dim() == 4 else nn.functional.conv1d
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def _over_slots(self, x: Tensor) -> Tensor:
        if self.slots == 2:
            positive, negative = self.weight[:, ::2], self.weight[:, 1::2]
            return self._run(torch.relu(x), positive, self.bias) + self._run(torch.relu(-x), negative, None)
        return self._run(expand_slots(x, self.slots, groups=self.groups), self.weight, self.bias)


class SasConv2d(_SasConv):
    """A convolution over images [N, C, H, W]; weight [K, m C / groups, R, S]."""


class SasConv1d(_SasConv):
    """A convolution over sequences [N, C, L]; weight [K, m C / groups, S]."""


class SasLinear(SasLayer):
    """A linear layer over [..., C]; weight [K, m C]."""

    _channel_axis = -1

    def _over_slots(self, x: Tensor) -> Tensor:
        if self.slots == 2:
            positive, negative = self.weight[:, ::2], self.weight[:, 1::2]
            on = nn.functional.linear(torch.relu(x), positive, self.bias)
            return on + nn.functional.linear(torch.relu(-x), negative)
        rows = expand_slots(x.reshape(-1, x.shape[-1]), self.slots)
        return nn.functional.linear(rows.view(*x.shape[:-1], -1), self.weight, self.bias)


def _wide_start(weight: Tensor, slots: int, kind: SasKind) -> Tensor:
    """Weights under which the layer over slots computes what it did.

    After ReLU the slots of values that are not positive have zeros; after GELU and SiLU, which pass some of them on,
    those slots hold |x| = -x and so the negated weight.
    """
    wide = widen_weight(weight, slots)
    if kind == "smooth":
        wide = wide.unflatten(1, (-1, slots))
        wide[:, :, 1::2] = -weight.unsqueeze(2)
        wide = wide.flatten(1, 2)
    return wide


def sas_layer(layer: nn.Module, *, slots: int, kind: SasKind, threshold: bool) -> SasLayer:
    """The layer under SAS that takes the place of another.

    Raises
    ------
    InputError
        If there is none for its kind.
    """
    makers: dict[type[nn.Module], Callable[..., SasLayer]] = {
        nn.Conv2d: SasConv2d,
        nn.Conv1d: SasConv1d,
        nn.Linear: SasLinear,
    }
    for kind_of, make in makers.items():
        if isinstance(layer, kind_of):
            return make(layer, slots=slots, kind=kind, threshold=threshold)
    raise InputError(f"SAS replaces Conv1d, Conv2d and Linear, not {type(layer).__name__}")
