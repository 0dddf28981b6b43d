"""The weights of planned layers as [K, C, R, S], and the network with some of them zeroed for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.weight_view import weight_view


def layer_weight(model: nn.Module, name: str) -> Tensor:
    """Weight of a layer, [K, C, R, S]; a view that shares memory with the model, without its gradient.

    Raises
    ------
    InputError
        If it holds NaN or infinity.
    """
    weight = weight_view(model.get_submodule(name)).detach()
    bad = int((~torch.isfinite(weight)).sum())
    if bad:
        raise InputError(
            f"layer {name!r}: {bad} of {weight.numel()} weights are NaN or infinite; give weights of finite numbers"
        )
    return weight


@contextmanager
def masked(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Zero the weights where a mask [K, C, R, S] is False, and put them back afterwards.

    Parameters
    ----------
    masks : mapping
        By layer name.
    """
    weights = {name: layer_weight(model, name) for name in masks}
    originals = {name: weight.clone() for name, weight in weights.items()}
    try:
        for name, mask in masks.items():
            weights[name].mul_(mask)
        yield
    finally:
        for name, original in originals.items():
            weights[name].copy_(original)
