"""Cut channels that masks hold at zero out of the network that is trained, so that later epochs get cheaper.

The full network stays what is validated, checkpointed and shipped. A smaller copy of it takes the steps; it computes
the same, but for the order of sums. What it learns goes back to its places in the full network after every epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..planner.branches import remove_branches
from ..planner.narrow import narrow
from .masked_width import MaskedWidth


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Smaller:
    """A copy of a network without the channels and branches that masks hold at zero.

    Attributes
    ----------
    places : mapping
        By parameter or buffer of the copy, int64 of its shape: where its values lie in the flattened tensor of the
        full network.
    """

    model: nn.Module
    places: Mapping[str, Tensor]

    def take(self, name: str, full: Tensor) -> Tensor:
        """The part of a tensor like the full network's of that name that the copy has."""
        return full.detach().reshape(-1)[self.places[name]]

    @torch.no_grad()
    def put(self, name: str, full: Tensor, part: Tensor) -> None:
        """Write such a part back; what the copy does not have stays."""
        flat = full.detach().reshape(-1).clone()
        flat[self.places[name]] = part.detach()
        full.copy_(flat.view(full.shape))


def cut_copy(model: nn.Module, widths: Sequence[MaskedWidth]) -> Smaller | None:
    """A copy with only the units that are not masked; None where parameters are shared, which a cut would part."""
    count = sum(1 for _ in model.named_parameters(remove_duplicate=False))
    if count > sum(1 for _ in model.named_parameters()):
        return None
    # Cutting a copy in which every value is its own place says where the values of the other one come from.
    numbered = copy.deepcopy(model).double()
    for tensor in numbered.state_dict().values():
        tensor.copy_(torch.arange(tensor.numel(), device=tensor.device).view(tensor.shape))
    places = {name: tensor.long() for name, tensor in _cut(numbered, widths).state_dict().items()}
    return Smaller(model=_cut(copy.deepcopy(model), widths), places=places)


def _cut(model: nn.Module, widths: Sequence[MaskedWidth]) -> nn.Module:
    narrow(model, {each.target.group: each.mask.nonzero().flatten().tolist() for each in widths if each.mask.any()})
    gone = {frozenset(each.target.group.branch) for each in widths if not each.mask.any()}
    if gone:
        traced = fx.GraphModule(model, _Tracer().trace(model))
        remove_branches(traced, gone)
        return traced
    return model


class _Tracer(fx.Tracer):
    """Takes batch-norms whole, also those that several processes share."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        batch_norm = isinstance(m, nn.modules.batchnorm._BatchNorm)
        return batch_norm or super().is_leaf_module(m, module_qualified_name)
