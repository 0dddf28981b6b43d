"""Make layers narrower: by zeros (what training does) or for good (what is run)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.groups import magnitude_mask
from ..kernels.pattern import Pattern
from ..kernels.weight_view import weight_view
from .schema import ChannelSlice, WidthGroup

Kept = Sequence[int]
"""Units of a group that stay, ascending."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def is_depthwise(module: nn.Module) -> bool:
    """Whether each output channel reads the input channel of its own number alone."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1


def sliced_axis(module: nn.Module, part: ChannelSlice) -> int:
    """Axis of a layer's weight that a slice cuts: 0 for rows, 1 for columns."""
    return 1 if part.axis == "in" and not is_depthwise(module) else 0


def sliced_channels(module: nn.Module, part: ChannelSlice, units: Kept) -> list[int]:
    """Indices on `sliced_axis` of some units; the columns of a grouped convolution are those of each of its groups."""
    channels = part.channels(units)
    if isinstance(module, nn.Conv2d) and sliced_axis(module, part) == 1 and module.groups > 1:
        return sorted({channel % module.weight.shape[1] for channel in channels})
    return channels


def sliced_tensors(module: nn.Module, part: ChannelSlice) -> tuple[tuple[nn.Parameter, int], ...]:
    """Parameters of a module that a slice cuts, each with the axis: weight and, for output channels, the bias."""
    axis = sliced_axis(module, part)
    names = ("weight",) if axis == 1 else ("weight", "bias")
    found = ((module._parameters.get(name), axis) for name in names)
    return tuple((parameter, axis) for parameter, axis in found if parameter is not None)


@torch.no_grad()
def mask_units(model: nn.Module, group: WidthGroup, kept: Kept) -> None:
    """Zero all that belongs to the other units of a group, in place; with no unit kept, its whole branch."""
    if not kept:
        for name in group.branch:
            zero_parameters(model.get_submodule(name))
    removed = removed_units(group, kept)
    for part in group.slices:
        module = model.get_submodule(part.module)
        channels = sliced_channels(module, part, removed)
        for parameter, axis in sliced_tensors(module, part):
            parameter.index_fill_(axis, torch.tensor(channels, dtype=torch.long, device=parameter.device), 0.0)


@torch.no_grad()
def zero_parameters(module: nn.Module) -> None:
    """Zero all parameters of a module's own."""
    for parameter in module.parameters(recurse=False):
        parameter.zero_()


def removed_units(group: WidthGroup, kept: Kept) -> list[int]:
    """The units of a group that do not stay."""
    return sorted(set(range(group.units)) - set(kept))


def narrow(model: nn.Module, kept: Mapping[WidthGroup, Kept]) -> None:
    """Cut the other units of groups out of a model, in place.

    Parameters
    ----------
    kept : mapping
        At least one unit a group.
    """
    rows: dict[str, set[int]] = {}
    columns: dict[str, set[int]] = {}
    for group, units in kept.items():
        removed = removed_units(group, units)
        for part in group.slices:
            module = model.get_submodule(part.module)
            taken = rows if sliced_axis(module, part) == 0 else columns
            taken.setdefault(part.module, set()).update(sliced_channels(module, part, removed))
        for head in group.head_counts:
            setattr(model.get_submodule(head.module), head.attribute, head.per_unit * len(units))
    for name in {**rows, **columns}:
        _cut(model.get_submodule(name), rows.get(name, set()), columns.get(name, set()))


def _cut(module: nn.Module, rows: set[int], columns: set[int]) -> None:
    depthwise, groups = is_depthwise(module), getattr(module, "groups", 1)
    for name, values in [*module._parameters.items(), *module._buffers.items()]:
        if values is None or values.dim() == 0:
            continue
        cut = _without(_without(values.detach(), 0, rows), 1, columns)
        if isinstance(values, nn.Parameter):
            module._parameters[name] = nn.Parameter(cut, requires_grad=values.requires_grad)
        else:
            module._buffers[name] = cut
    weight = module._parameters["weight"]
    assert weight is not None
    if isinstance(module, nn.Conv2d):
        module.out_channels = weight.shape[0]
        module.groups = weight.shape[0] if depthwise else groups
        module.in_channels = weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, BATCH_NORMS):
        module.num_features = weight.shape[0]


def _without(values: Tensor, axis: int, removed: set[int]) -> Tensor:
    if not removed or values.dim() <= axis:
        return values
    left = [index for index in range(values.shape[axis]) if index not in removed]
    # Memory order is kept: trained models come in channels_last.
    order = (
        torch.channels_last if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last) else None
    )
    cut = values.index_select(axis, torch.tensor(left, dtype=torch.long, device=values.device))
    return cut.contiguous() if order is None else cut.contiguous(memory_format=order)


@torch.no_grad()
def unit_strength(model: nn.Module, group: WidthGroup) -> Tensor:
    """How much of the weights each unit of a group holds, [units].

    The mean over the group's slices of the unit's squared weights, each slice divided by its own mean, so that large
    layers do not drown small ones; 0 exactly where all weights of the unit are zero.
    """
    total = torch.zeros(group.units, dtype=torch.float64)
    for part in group.slices:
        module = model.get_submodule(part.module)
        if isinstance(module, nn.Conv2d | nn.Linear):
            squares = slice_squares(module, part, group.units, weight_view(module).detach().square())
            total += squares / squares.mean().clamp_min(torch.finfo(torch.float64).tiny)
    return total


def slice_squares(module: nn.Module, part: ChannelSlice, units: int, values: Tensor) -> Tensor:
    """Sum of values [K, C, R, S] over the weights of each unit in one slice, [units] float64."""
    axis = sliced_axis(module, part)
    others = tuple(each for each in range(4) if each != axis)
    sums = values.double().sum(dim=others).cpu()
    owner = unit_owners(module, part, units, len(sums))
    found = torch.zeros(units, dtype=torch.float64)
    return found.index_add_(0, owner[owner < units], sums[owner < units])


def unit_owners(module: nn.Module, part: ChannelSlice, units: int, size: int) -> Tensor:
    """[size]: which unit each index of `sliced_axis` belongs to, `units` where to none."""
    offsets, unit, step = torch.tensor(part.offsets), torch.arange(units), torch.arange(part.run)
    channels = offsets[:, None, None] + unit[None, :, None] * part.run + step[None, None, :]
    if isinstance(module, nn.Conv2d) and sliced_axis(module, part) == 1 and module.groups > 1:
        channels = channels % module.weight.shape[1]
    owner = torch.full((size,), units)
    owner[channels.flatten()] = unit[None, :, None].expand_as(channels).flatten()
    return owner


def unit_order(model: nn.Module, group: WidthGroup) -> Tensor:
    """The units of a group, the strongest first."""
    return unit_strength(model, group).argsort(descending=True, stable=True)


def strongest_units(model: nn.Module, group: WidthGroup, count: int) -> list[int]:
    """The units that stay when a group is narrowed to `count`, ascending."""
    return sorted(unit_order(model, group)[:count].tolist())


def living_units(model: nn.Module, group: WidthGroup, count: int) -> list[int]:
    """The `count` units of a trained model that hold what is not zero.

    Raises
    ------
    InputError
        If more units than that are not zero.
    """
    alive = int((unit_strength(model, group) > 0).sum())
    if alive > count:
        raise InputError(
            f"width group {group.name!r} has {alive} channels that are not zero, the plan keeps {count} of "
            f"{group.units}; give weights that were trained to this plan"
        )
    return strongest_units(model, group, count)


def mask_of_left(weight: Tensor, left: tuple[Tensor, Tensor], pattern: Pattern, sparsity: float) -> Tensor:
    """Mask of a pattern in what widths have left of a weight.

    Parameters
    ----------
    weight : Tensor
        [K, C, R, S].
    left : tuple of Tensor
        Indices of the rows and of the columns that stay.
    sparsity : float
        Of what is left.

    Returns
    -------
    Tensor
        bool, [K, C, R, S]; True wherever a width has taken the weight.
    """
    rows, columns = left
    mask = torch.ones_like(weight, dtype=torch.bool)
    if len(rows) and len(columns):
        inner = magnitude_mask(weight[rows][:, columns], pattern, sparsity)
        mask[rows[:, None], columns[None, :]] = inner
    return mask


def left_of(model: nn.Module, layer: str, kept: Sequence[tuple[WidthGroup, Kept]]) -> tuple[Tensor, Tensor]:
    """Indices of the rows and columns of a layer's weight that stay with some units of groups."""
    module = model.get_submodule(layer)
    weight = weight_view(module)
    stays = [torch.ones(weight.shape[axis], dtype=torch.bool) for axis in (0, 1)]
    for group, units in kept:
        for part in group.slices:
            if part.module == layer:
                axis = sliced_axis(module, part)
                stays[axis][sliced_channels(module, part, removed_units(group, units))] = False
    rows, columns = (each.nonzero().flatten() for each in stays)
    return rows, columns
