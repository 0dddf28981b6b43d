"""The network with all zeros of a decision in it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..kernels.pattern import parse_pattern
from .ablation import PrunedWeight, WeightChoice
from .layer_weights import layer_weight, replaced
from .narrow import left_of, mask_of_left, strongest_units
from .network_time import Network, Picked
from .options import NO_KERNEL
from .width_loss import narrowed_for_a_while


def stitching(network: Network, picked: Picked) -> tuple[WeightChoice, ...]:
    """The pruned layers of a decision; what widths take is not among them."""
    return tuple(
        WeightChoice(layer=layer.layer.name, pattern=option.candidate.pattern, sparsity=option.candidate.sparsity)
        for layer, option in zip(network.layers, picked.layers, strict=True)
        if option.candidate.kernel != NO_KERNEL and not parse_pattern(option.candidate.pattern).is_dense
    )


@contextmanager
def carrying(model: nn.Module, network: Network, picked: Picked, pruned: PrunedWeight) -> Iterator[None]:
    """Widths first, then what is skipped in what is left.

    Where a width is narrowed the zeros are those by magnitude in what is left; else they are those of `pruned`.
    """
    narrowed = [
        (each.group, strongest_units(model, each.group, kept))
        for each, kept in zip(network.widths.groups, picked.kept, strict=True)
        if kept < each.group.units
    ]
    choices = stitching(network, picked)
    if not narrowed:
        with replaced(model, {choice.layer: pruned(choice) for choice in choices}):
            yield
        return
    with narrowed_for_a_while(model, narrowed):
        weights = {}
        for choice in choices:
            weight, left = layer_weight(model, choice.layer), left_of(model, choice.layer, narrowed)
            weights[choice.layer] = weight * mask_of_left(weight, left, parse_pattern(choice.pattern), choice.sparsity)
        with replaced(model, weights):
            yield
