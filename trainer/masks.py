"""Masks of the planned layers: made from the weights' magnitudes, and held.

Gradual magnitude pruning (Zhu and Gupta, 2017): in the pruning phase the masks are made anew from the present weights
every few steps, for the sparsity that the schedule has reached; in fine-tuning they are fixed. A masked weight is held
at zero from then on: its gradient is multiplied by the mask at every step and its momentum is cleared, so weight decay
and momentum leave it exactly zero. There is no dense shadow copy and no regrowth, which keeps batch-norm sane too:
behind a filter of zeros its gradient is amplified by 1/sqrt(eps), about 300 times.

N:M patterns dictate their sparsity and are applied in full at the first update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.groups import magnitude_mask
from ..kernels.weight_view import weight_view
from ..planner.narrow import mask_of_left
from .assignment import Assignment, LayerSparsity, planned_module
from .group_lasso import shrink_doomed_groups, structured_parts
from .masked_width import MaskedWidth, masked_width
from .schedule import cubic_sparsity
from .steer import AHEAD_FRAC, Emergence


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedLayer:
    """A planned layer of a model; `mask` is changed in place."""

    target: LayerSparsity
    module: nn.Conv1d | nn.Conv2d | nn.Linear
    mask: Tensor
    """Of the weight's own shape, dtype and memory order: 1 where a weight is free, 0 where it is held at zero."""

    @property
    def weight(self) -> Tensor:
        return self.module.weight

    @property
    def zero_frac(self) -> float:
        """Share of the weights that are exactly zero."""
        return float((self.weight.detach() == 0).double().mean())

    def held(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters with the factor, 0 or 1, that holds them."""
        yield self.module.weight, self.mask


MaskedLayers = Sequence[MaskedLayer | MaskedWidth]


def masked_layers(model: nn.Module, assignment: Assignment) -> tuple[MaskedLayer | MaskedWidth, ...]:
    """The planned widths and layers of a model, all weights still free.

    Raises
    ------
    InputError
        If the model lacks a planned layer, or it is neither a Conv2d nor a Linear.
    UnsupportedError
        If a pattern is not one of weights (SAS).
    """
    layers: list[MaskedLayer | MaskedWidth] = []
    for target in assignment:
        if not isinstance(target, LayerSparsity):
            layers.append(masked_width(model, target))
            continue
        module = planned_module(model, target)
        # A pattern or sparsity that cannot be masked fails here and not after an epoch.
        magnitude_mask(weight_view(module).detach()[:1], target.pattern, target.sparsity)
        layers.append(MaskedLayer(target=target, module=module, mask=torch.ones_like(module.weight.detach())))
    return tuple(layers)


@torch.no_grad()
def update_masks(
    layers: MaskedLayers, *, done_frac: float, before_frac: float = 0.0, shrink: Mapping[str, float] | None = None
) -> dict[str, Emergence]:
    """Shrink, then mask: take the weights to the sparsity that a share of the pruning phase calls for.

    Widths come first; in the layers between them the patterns skip in what is left.

    Parameters
    ----------
    done_frac : float
        Share of the pruning phase that is over; at 1 the masks are exactly those of the plan.
    before_frac : float
        The same at the last update.
    shrink : mapping, optional
        By the name of the target: strength of the group lasso times learning rate, summed over the steps since the
        last update.

    Returns
    -------
    dict
        For all that was shrunk: how its zeros came about.
    """
    shrink = shrink or {}
    found: dict[str, Emergence] = {}
    widths = [layer for layer in layers if isinstance(layer, MaskedWidth)]
    for width in widths:
        seen = width.update(done_frac=done_frac, before_frac=before_frac, lasso=shrink.get(width.target.name, 0.0))
        if seen is not None:
            found[width.target.name] = seen
    apply_masks(widths)
    for layer in layers:
        if isinstance(layer, MaskedLayer):
            rows, columns = (_left(layer.module, widths, axis) for axis in (0, 1))
            strength = shrink.get(layer.target.name, 0.0)
            emerged = _update_layer(layer, (rows, columns), done_frac=done_frac, strength=strength)
            if emerged is not None:
                found[layer.target.name] = Emergence(
                    emerged_frac=emerged,
                    before_frac=cubic_sparsity(before_frac, final=layer.target.sparsity),
                    due_frac=cubic_sparsity(done_frac, final=layer.target.sparsity),
                )
    apply_masks(layers)
    return found


@torch.no_grad()
def take_refitted(layers: MaskedLayers, weights: Mapping[str, Tensor]) -> None:
    """Put refitted weights into the layers; their zeros are the masks, at the plan's sparsity and width at once.

    The units that stay are the strongest of the dense weights. Where a width cuts a refitted layer, the strongest of
    its weights that are left stay.

    Parameters
    ----------
    weights : mapping
        By the name of every sparse layer, [K, C, R, S].
    """
    widths = [layer for layer in layers if isinstance(layer, MaskedWidth)]
    for width in widths:
        width.update(done_frac=1.0, before_frac=1.0, lasso=0.0)
    for layer in layers:
        if not isinstance(layer, MaskedLayer):
            continue
        view = weight_view(layer.module)
        view.data.copy_(weights[layer.target.name].to(view.device))
        rows, columns = (_left(layer.module, widths, axis) for axis in (0, 1))
        whole = (len(rows), len(columns)) == tuple(view.shape[:2])
        target = layer.target
        kept = view != 0 if whole else mask_of_left(view, (rows, columns), target.pattern, target.sparsity)
        layer.mask.copy_(kept.reshape(layer.mask.shape))
    apply_masks(layers)


def _left(module: nn.Module, widths: Sequence[MaskedWidth], axis: int) -> Tensor:
    """[K] or [C]: indices of the rows or columns of a weight that no width has taken."""
    weight = module.get_parameter("weight")
    stays = torch.ones(weight.shape[axis], dtype=torch.bool, device=weight.device)
    for width in widths:
        stays &= width.stays(weight, axis)
    return stays.nonzero().flatten()


def _update_layer(
    layer: MaskedLayer, left: tuple[Tensor, Tensor], *, done_frac: float, strength: float
) -> float | None:
    """Renew a mask; where the layer was shrunk, the share of zeros among what the widths left, before the cut."""
    target, weight = layer.target, weight_view(layer.module)
    rows, columns = left
    emerged = None
    shrunk = strength > 0 and bool(structured_parts(target.pattern)) and len(rows) > 0 and len(columns) > 0
    if shrunk:
        inner = weight[rows][:, columns]
        soon = cubic_sparsity(min(1.0, done_frac + AHEAD_FRAC), final=target.sparsity)
        inner = shrink_doomed_groups(inner, target.pattern, sparsity=soon, strength=strength)
        weight[rows[:, None], columns[None, :]] = inner
        emerged = float((inner == 0).double().mean())
    kept = mask_of_left(weight, left, target.pattern, cubic_sparsity(done_frac, final=target.sparsity))
    if shrunk and done_frac < 1.0:
        kept &= weight != 0
    layer.mask.copy_(kept.reshape(layer.mask.shape))
    return emerged


@torch.no_grad()
def apply_masks(layers: MaskedLayers) -> None:
    """Set the masked weights to zero."""
    _multiply([pair for layer in layers for pair in layer.held()])


@torch.no_grad()
def hold_gradients(layers: MaskedLayers) -> None:
    """Clear the gradients of masked weights; call between the backward pass and the optimiser's step."""
    _multiply([(parameter.grad, mask) for layer in layers for parameter, mask in layer.held()])


@torch.no_grad()
def hold_optimizer(layers: MaskedLayers, optimizer: torch.optim.Optimizer) -> None:
    """Clear what the optimiser remembers of masked weights (momentum, moments); call after the masks have changed."""
    _multiply(
        [
            (value, mask)
            for layer in layers
            for parameter, mask in layer.held()
            for value in optimizer.state.get(parameter, {}).values()
            if isinstance(value, Tensor) and value.shape == parameter.shape
        ]
    )


def _multiply(pairs: Sequence[tuple[Tensor | None, Tensor]]) -> None:
    present = [(tensor, mask) for tensor, mask in pairs if tensor is not None]
    if present:
        torch._foreach_mul_([tensor for tensor, _ in present], [mask for _, mask in present])
