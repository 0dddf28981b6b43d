"""Low-rank layers of a plan: factorise them, train the factors, multiply them out again.

    student = factorised(model, low_rank_layers(plan))
    ...  # train it
    model.load_state_dict(plain_state(student))

While it trains, a layer of low rank is the two or three thin layers that its kernel will run, so a step costs less than
a dense one. Multiplied out it is the plain layer again, with a weight of that rank: that is what run folders hold, and
what kernels find the factors of when they pack.

References
----------
Kim et al., Compression of deep convolutional neural networks for fast and low power mobile applications, ICLR 2016
(arXiv 1511.06530): factorise, then fine-tune the whole network.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.lowrank import factorise, low_rank, multiply_factors, ranks_for
from ..kernels.pattern import LOW_RANK
from ..kernels.weight_view import bias_of, weight_view
from ..planner.schema import Plan

PlainLayer = nn.Conv1d | nn.Conv2d | nn.Linear


class LowRankLayer(nn.Sequential):
    """Thin layers in a row that stand for one; only the last has the bias.

    Parameters
    ----------
    layer : nn.Module
        A Conv1d, Conv2d or Linear of one group; left as it was.
    sparsity : float
        Share of its weights that is saved; the ranks follow from it (`kernels.lowrank.ranks_for`).

    Raises
    ------
    InputError
        If the layer has several groups, which would each have ranks of their own.
    """

    def __init__(self, layer: PlainLayer, sparsity: float) -> None:
        if getattr(layer, "groups", 1) > 1:
            raise InputError(f"a layer of low rank has one group, this one has {layer.groups}; plan it without")
        view = weight_view(layer).detach()
        factors = factorise(view, ranks_for(tuple(view.shape), sparsity))
        end = len(factors) - 1
        super().__init__(
            *(
                _thin(layer, factor, has_kernel=number == end - 1, is_last=number == end)
                for number, factor in enumerate(factors)
            )
        )

    @property
    def weight(self) -> Tensor:
        """Of the one layer that these amount to, in its own shape."""
        views = [weight_view(stage) for stage in self]
        product = multiply_factors([view.detach().double() for view in views]).to(views[0].dtype)
        plain_dims = next(self[0].parameters()).dim()
        return product.flatten(1) if plain_dims == 2 else product.squeeze(2) if plain_dims == 3 else product

    @property
    def bias(self) -> Tensor | None:
        """Of the same layer."""
        return bias_of(self[-1])


def low_rank_layers(plan: Plan) -> Mapping[str, float]:
    """By name: the share of the weights that each low-rank layer of a plan saves."""
    return {layer.name: layer.chosen.sparsity for layer in plan.layers if layer.chosen.pattern == LOW_RANK}


def factorised(model: nn.Module, sparsities: Mapping[str, float]) -> nn.Module:
    """A copy whose layers of low rank are factorised; the model itself where there are none."""
    if not sparsities:
        return model
    copied = copy.deepcopy(model)
    for name, sparsity in sparsities.items():
        parent, _, own = name.rpartition(".")
        layer = copied.get_submodule(name)
        assert isinstance(layer, PlainLayer)
        setattr(copied.get_submodule(parent), own, LowRankLayer(layer, sparsity).train(model.training))
    return copied


def is_factorised(model: nn.Module) -> bool:
    """Whether any layer of a model is."""
    return any(isinstance(module, LowRankLayer) for module in model.modules())


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model, with one weight and one bias for each layer that is factorised in it."""
    state = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, LowRankLayer):
            for key in module.state_dict():
                del state[f"{name}.{key}"]
            state[f"{name}.weight"] = module.weight
            if module.bias is not None:
                state[f"{name}.bias"] = module.bias
    return state


@torch.no_grad()
def bring_to_low_rank(model: nn.Module, sparsities: Mapping[str, float]) -> None:
    """Put the nearest weights of low rank into plain layers, as training starts from them."""
    for name, sparsity in sparsities.items():
        view = weight_view(model.get_submodule(name))
        view.copy_(low_rank(view, ranks_for(tuple(view.shape), sparsity)))


def _thin(layer: PlainLayer, factor: Tensor, *, has_kernel: bool, is_last: bool) -> PlainLayer:
    """One of the layers in a row; stride, padding and dilation are those of the one that has the kernel."""
    c_out, c_in = factor.shape[:2]
    bias = is_last and layer.bias is not None
    kind: Any = next(each for each in (nn.Conv1d, nn.Conv2d, nn.Linear) if isinstance(layer, each))
    if has_kernel and not isinstance(layer, nn.Linear):
        shared = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        made = kind(c_in, c_out, bias=bias, **{name: getattr(layer, name) for name in shared})
    else:
        made = kind(c_in, c_out, *(() if kind is nn.Linear else (1,)), bias=bias)
    made = made.to(layer.weight.device, layer.weight.dtype)
    with torch.no_grad():
        weight_view(made).copy_(factor)
        if bias:
            made.bias.copy_(layer.bias)
    thin: PlainLayer = made
    return thin
