"""The weight and bias of a torch layer as the kernels, masks and penalties see them."""

from __future__ import annotations

from torch import Tensor, nn

from .errors import InputError
from .sas import SlotLayer


def weight_view(module: nn.Module) -> Tensor:
    """Weight of a layer as [K, C, R, S], sharing memory with it.

    That of a Conv1d is [K, C, 1, S], of a linear [K, C, 1, 1]; under SAS C counts slots.

    Raises
    ------
    InputError
        If the module is no Conv1d, Conv2d or Linear, nor one of these under SAS.
    """
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear | SlotLayer):
        weight = module.weight
        return weight if weight.dim() == 4 else weight[:, :, None] if weight.dim() == 3 else weight[:, :, None, None]
    raise InputError(f"a {type(module).__name__} has no weight [K, C, R, S]; allowed are Conv1d, Conv2d and Linear")


def bias_of(module: nn.Module) -> Tensor | None:
    """Bias [K] of a layer, sharing memory with it, or None."""
    return module.bias.detach() if isinstance(module.bias, Tensor) else None
