"""Layers that learn to be computed in int8: they round as the kernel will, and gradients pass as if they did not.

In training and evaluation such a layer multiplies rounded inputs by rounded weights, in floating point. Weights are
rounded by output channel to [-127, 127] of its largest, so a pruned weight stays exactly zero; inputs to bytes over a
range that follows what the layer sees. Batch-norm behind the layer scales whole rows, so folding it in changes none of
the integers.

What the kernel rounds besides, its output (after batch-norm, addition and ReLU), training does not see; the range of
that, `y_range`, is observed when training is over (`runtime.observe_outputs`).

References
----------
Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018,
section 3. Bengio et al., arXiv 1308.3432 (the straight-through estimator).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.quantisation import STORED_MAX, WEIGHT_MAX, Quantisation
from ..kernels.sas import WholeLayer
from ..planner.schema import Plan

FOLLOW = 0.01
"""Weight of a batch's extremes in the range of the inputs while training."""


class Int8Layer(WholeLayer, nn.Module):
    """What the three kinds have in common.

    Attributes
    ----------
    x_range, y_range : Tensor
        float32, [2]: least and largest input and output; both 0 where nothing was seen yet, and inputs then pass as
        they are.
    observing : bool
        Widen the range of the inputs to whatever comes, and do not round them.
    """

    x_range: Tensor
    y_range: Tensor
    observing: bool

    def rounded_weight(self) -> Tensor:
        """As the kernel has it."""
        weight = self.get_parameter("weight").float()
        scale = _row_scale(weight)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -WEIGHT_MAX, WEIGHT_MAX)
        return rounded

    def rounded_input(self, x: Tensor) -> Tensor:
        """As the kernel has it; what lies outside the range is cut off, and gets no gradient."""
        if self.observing:
            widen(self.x_range, x)
            return x
        if self.training:
            self._follow(x)
        if not self.x_range.any():
            return x
        scale, zero_point = stored_as(self.x_range)
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(x.float(), scale, zero_point, 0, STORED_MAX)
        return rounded

    def quantisation(self) -> Quantisation:
        """For the kernel.

        Raises
        ------
        InputError
            If the ranges were not observed.
        """
        if not (self.x_range.any() and self.y_range.any()):
            raise InputError(
                "nothing says in which range inputs and outputs of the layers lie that are planned in int8; "
                "give weights that 'sparseplan train' made for this plan"
            )
        (x_scale, x_zero), (y_scale, y_zero) = stored_as(self.x_range), stored_as(self.y_range)
        return Quantisation(
            x_scale=float(x_scale), x_zero_point=int(x_zero), y_scale=float(y_scale), y_zero_point=int(y_zero)
        )

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        seen = torch.stack(torch.aminmax(x.detach())).float()
        self.x_range.lerp_(seen, FOLLOW if bool(self.x_range.any()) else 1.0)


class Int8Conv1d(Int8Layer, nn.Conv1d):
    """See `Int8Layer`."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch's own."""
        return self._conv_forward(self.rounded_input(x), self.rounded_weight(), self.bias)


class Int8Conv2d(Int8Layer, nn.Conv2d):
    """See `Int8Layer`."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch's own."""
        return self._conv_forward(self.rounded_input(x), self.rounded_weight(), self.bias)


class Int8Linear(Int8Layer, nn.Linear):
    """See `Int8Layer`."""

    def forward(self, x: Tensor) -> Tensor:
        """As torch's own."""
        return nn.functional.linear(self.rounded_input(x), self.rounded_weight(), self.bias)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: Int8Conv1d,
    nn.Conv2d: Int8Conv2d,
    nn.Linear: Int8Linear,
}


def int8_layers(plan: Plan) -> tuple[str, ...]:
    """Names of the layers that a plan computes in int8."""
    return tuple(layer.name for layer in plan.layers if layer.chosen.dtype == "int8")


def with_int8(model: nn.Module, names: Collection[str]) -> nn.Module:
    """A copy whose named layers learn to be int8; the model itself where none is named.

    Raises
    ------
    InputError
        If one is no plain Conv1d, Conv2d or Linear.
    """
    if not names:
        return model
    copied = copy.deepcopy(model)
    for name in names:
        layer = copied.get_submodule(name)
        if type(layer) not in _KINDS:
            raise InputError(
                f"layer {name!r} is a {type(layer).__name__}; only plain Conv1d, Conv2d and Linear can be in int8"
            )
        made = _as(_KINDS[type(layer)], layer)
        made.register_buffer("x_range", torch.zeros(2, device=layer.get_parameter("weight").device))
        made.register_buffer("y_range", torch.zeros(2, device=layer.get_parameter("weight").device))
        made.observing = False  # type: ignore[assignment]
        copied.set_submodule(name, made)
    return copied


def plain_layer(layer: nn.Module) -> nn.Module:
    """The torch layer that one in int8 was made from, with its present weights."""
    kind = next(plain for plain, ours in _KINDS.items() if isinstance(layer, ours))
    made = _as(kind, copy.deepcopy(layer))
    del made.x_range, made.y_range, made.observing
    return made


@torch.no_grad()
def observe_inputs(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the ranges of the inputs to what some batches of normalised images bring, in evaluation mode."""
    if not any(isinstance(module, Int8Layer) for module in model.modules()):
        return
    was_training = model.training
    model.eval()
    with _observing(model):
        for images in batches:
            model(images)
    model.train(was_training)


def stored_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The integers of a weight, int8, and the scale of each row, float32."""
    scale = _row_scale(weight)
    rows = weight.detach().float().flatten(1) / scale[:, None]
    return rows.round().to(torch.int8).view(weight.shape), scale


def _row_scale(weight: Tensor) -> Tensor:
    scale = weight.detach().float().flatten(1).abs().amax(dim=1) / WEIGHT_MAX
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def stored_as(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) that store a range of reals [2], widened to hold zero, in bytes."""
    low, high = seen[0].clamp(max=0.0), seen[1].clamp(min=0.0)
    scale = (high - low) / STORED_MAX
    return scale, (-low / scale).round().to(torch.int32)


@torch.no_grad()
def widen(seen: Tensor, values: Tensor) -> None:
    """Make a range [2], in place, hold some values as well."""
    low, high = torch.aminmax(values.detach().float())
    seen.copy_(torch.stack((torch.minimum(seen[0], low), torch.maximum(seen[1], high))))


@contextmanager
def _observing(model: nn.Module) -> Iterator[None]:
    layers: list[Any] = [module for module in model.modules() if isinstance(module, Int8Layer)]
    for layer in layers:
        layer.observing = True
    try:
        yield
    finally:
        for layer in layers:
            layer.observing = False


def _as(kind: type[nn.Module], layer: nn.Module) -> nn.Module:
    """The same layer, parameters and all, as another class."""
    made = kind.__new__(kind)
    made.__dict__.update(layer.__dict__)
    return made
