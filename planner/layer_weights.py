"""The weights of planned layers as [K, C, R, S], and the network with others in their place for a while."""

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
def replaced(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other weights into some layers, and the old ones back afterwards.

    Parameters
    ----------
    weights : mapping
        By layer name, [K, C, R, S].
    """
    views = {name: layer_weight(model, name) for name in weights}
    originals = {name: view.clone() for name, view in views.items()}
    try:
        for name, weight in weights.items():
            views[name].copy_(weight)
        yield
    finally:
        for name, original in originals.items():
            views[name].copy_(original)
