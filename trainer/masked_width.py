"""A width group in training: the same channels are held at zero in all that make, norm and read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.weight_view import weight_view
from ..planner.narrow import slice_squares, sliced_tensors, strongest_units, unit_owners, unit_strength
from .assignment import WidthSparsity
from .schedule import cubic_sparsity
from .steer import AHEAD_FRAC, Emergence


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldTensor:
    """A parameter of the group: which unit each index of its axis belongs to, `units` where to none."""

    parameter: nn.Parameter
    axis: int
    owner: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedWidth:
    """A width group of a model; `mask` is changed in place.

    Attributes
    ----------
    mask : Tensor
        [units] of 0 and 1; all 0 once the whole branch is gone.
    tensors : tuple of HeldTensor
        Weights, biases and norms that the units cut.
    branch : tuple of nn.Parameter
        What goes as a whole when no unit is left.
    """

    target: WidthSparsity
    model: nn.Module
    mask: Tensor
    tensors: tuple[HeldTensor, ...]
    branch: tuple[nn.Parameter, ...]

    @property
    def zero_frac(self) -> float:
        """Share of the units that are held at zero."""
        return 1.0 - float(self.mask.double().mean())

    def held(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parameters with the factor, 0 or 1, that holds them, of a shape that broadcasts to theirs."""
        if not bool(self.mask.any()):
            yield from ((parameter, torch.zeros_like(parameter)) for parameter in self.branch)
        for tensor in self.tensors:
            shape = [1] * tensor.parameter.dim()
            shape[tensor.axis] = -1
            yield tensor.parameter, self._factor(tensor).to(tensor.parameter.dtype).view(shape)

    def stays(self, weight: Tensor, axis: int) -> Tensor:
        """[length of the axis] bool: the rows or columns of a weight that the group has not taken."""
        stays = torch.ones(weight.shape[axis], dtype=torch.bool, device=weight.device)
        for tensor in self.tensors:
            if tensor.parameter is weight and tensor.axis == axis:
                stays &= self._factor(tensor).bool()
        return stays

    @torch.no_grad()
    def update(self, *, done_frac: float, before_frac: float, lasso: float) -> Emergence | None:
        """Take the group to the width that a share of the pruning phase calls for; see `masks.update_masks`."""
        group, kept = self.target.group, self.target.kept
        removed_frac = 1.0 - kept / group.units
        emerged = None
        if lasso > 0:
            soon = int((1.0 - cubic_sparsity(min(1.0, done_frac + AHEAD_FRAC), final=removed_frac)) * group.units)
            self._shrink_doomed(strongest_units(self.model, group, max(kept, soon)), strength=lasso)
            emerged = Emergence(
                emerged_frac=float((unit_strength(self.model, group) == 0).double().mean()),
                before_frac=cubic_sparsity(before_frac, final=removed_frac),
                due_frac=cubic_sparsity(done_frac, final=removed_frac),
            )
        share = cubic_sparsity(done_frac, final=removed_frac)
        # The last unit of a branch goes when its time is over, not before.
        count = kept if done_frac >= 1.0 else max(kept, round((1.0 - share) * group.units), 1)
        self.mask.zero_()
        self.mask[strongest_units(self.model, group, count)] = 1.0
        return emerged

    def _factor(self, tensor: HeldTensor) -> Tensor:
        return torch.cat([self.mask, self.mask.new_ones(1)])[tensor.owner]

    def _shrink_doomed(self, survivors: list[int], *, strength: float) -> None:
        """The proximal step of the group lasso, each group being all weights of a unit wherever they lie."""
        units = self.target.group.units
        squares, sizes = torch.zeros(units, dtype=torch.float64), torch.zeros(units, dtype=torch.float64)
        for part in self.target.group.slices:
            module = self.model.get_submodule(part.module)
            if isinstance(module, nn.Conv2d | nn.Linear):
                weight = weight_view(module).detach()
                squares += slice_squares(module, part, units, weight.square())
                sizes += slice_squares(module, part, units, torch.ones_like(weight))
        scale = (1.0 - strength * sizes.sqrt() / squares.sqrt().clamp_min(1e-30)).clamp_min(0.0)
        scale[survivors] = 1.0
        factor = torch.cat([scale, scale.new_ones(1)]).to(self.mask.device)
        for tensor in self.tensors:
            shape = [1] * tensor.parameter.dim()
            shape[tensor.axis] = -1
            if tensor.parameter.dim() > 1:
                tensor.parameter.mul_(factor[tensor.owner].to(tensor.parameter.dtype).view(shape))


def masked_width(model: nn.Module, target: WidthSparsity) -> MaskedWidth:
    """A width group of a model, all units still free.

    Raises
    ------
    InputError
        If the model lacks one of its modules.
    """
    group = target.group
    tensors = []
    for part in group.slices:
        module = _module(model, part.module)
        for parameter, axis in sliced_tensors(module, part):
            owner = unit_owners(module, part, group.units, parameter.shape[axis]).to(parameter.device)
            tensors.append(HeldTensor(parameter=parameter, axis=axis, owner=owner))
    branch = [] if target.kept else [_module(model, name) for name in group.branch]
    device = tensors[0].parameter.device
    return MaskedWidth(
        target=target,
        model=model,
        mask=torch.ones(group.units, device=device),
        tensors=tuple(tensors),
        branch=tuple(parameter for module in branch for parameter in module.parameters(recurse=False)),
    )


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise InputError(
            f"the plan narrows {name!r}, which {type(model).__name__} does not have; "
            "give the model that the plan was made for"
        ) from None
