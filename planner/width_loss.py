"""By how much the loss is expected to rise when a width group keeps fewer units."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.progress import Progress
from .ablation import LEAST_LOSS
from .calibration import Calibration, Labelled, label, sample_losses
from .eval_mode import evaluating
from .fisher import fisher_diagonal
from .layer_weights import layer_weight
from .loss_scale import Estimates, fit_loss_scale
from .narrow import mask_units, slice_squares, strongest_units, unit_order
from .schema import ChannelSlice, WidthGroup
from .widths import GroupLevels

FISHER_SHARE = 0.3
"""Of the budget, for gradients; ablations get the rest."""
ABLATION_IMAGES = 256
MEASURED_QUANTILES = (0.35, 0.0, 0.7)
"""Which of a group's levels are measured, one a round: narrow ones cost the most, so they come early."""

Levels = tuple[float, ...]


def width_losses(
    model: nn.Module,
    widths: Sequence[GroupLevels],
    *,
    calibration: Calibration | None,
    budget_s: float,
    progress: Progress,
) -> tuple[Levels, ...]:
    """Rise of the loss by group and level, each as if it were the only group narrowed.

    The units that go are the weakest (`narrow.unit_strength`), as in training. With data: the second-order estimate of
    `sensitivity`, summed over the rows of all layers that make the group's channels (the columns of those that read
    them are counted once by that), brought to scale by measured ablations of single groups. Without: the share of each
    of these layers' squared weights that goes. At level 0 all layers of the branch count.

    Returns
    -------
    tuple of tuple of float
        In the order of the levels. In a branch of several groups the first one carries the loss of level 0.
    """
    if not widths:
        return ()
    layers = sorted(
        {part.module for each in widths for part in _made(model, each.group)} | _branch_layers(model, widths)
    )
    carriers = _carriers(widths)
    if calibration is None:
        importance = {}
        for name in layers:
            squares = layer_weight(model, name).square()
            importance[name] = squares / squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)
        return tuple(
            _monotone(_estimates(model, each, importance), each.levels, carries=number in carriers)
            for number, each in enumerate(widths)
        )
    with evaluating(model):
        data = label(model, calibration)
        fisher = fisher_diagonal(model, layers, data=data, budget_s=FISHER_SHARE * budget_s, progress=progress)
        importance = {
            name: 0.5 * fisher[name].reshape(weight.shape) * weight.square()
            for name, weight in ((name, layer_weight(model, name)) for name in layers)
        }
        estimates = [_estimates(model, each, importance) for each in widths]
        measured = _ablate(model, widths, data, budget_s=(1.0 - FISHER_SHARE) * budget_s, progress=progress)
    scaled = _scaled(estimates, measured)
    return tuple(
        _monotone(losses, each.levels, carries=number in carriers)
        for number, (losses, each) in enumerate(zip(scaled, widths, strict=True))
    )


def _made(model: nn.Module, group: WidthGroup) -> list[ChannelSlice]:
    """The slices of the layers that make a group's channels."""
    return [
        part
        for part in group.slices
        if part.axis == "out" and isinstance(model.get_submodule(part.module), nn.Conv2d | nn.Linear)
    ]


def _branch_layers(model: nn.Module, widths: Sequence[GroupLevels]) -> set[str]:
    names = {name for each in widths for name in each.group.branch}
    return {name for name in names if isinstance(model.get_submodule(name), nn.Conv2d | nn.Linear)}


def _carriers(widths: Sequence[GroupLevels]) -> set[int]:
    """The first group of each branch."""
    first: dict[tuple[str, ...], int] = {}
    for number, each in enumerate(widths):
        first.setdefault(each.group.branch, number)
    return set(first.values())


def _estimates(model: nn.Module, each: GroupLevels, importance: Mapping[str, Tensor]) -> list[float]:
    units = each.group.units
    by_unit = torch.zeros(units, dtype=torch.float64)
    for part in _made(model, each.group):
        by_unit += slice_squares(model.get_submodule(part.module), part, units, importance[part.module])
    order = unit_order(model, each.group)
    found = []
    for level in each.levels:
        if level == 0:
            branch = [name for name in each.group.branch if name in importance]
            found.append(float(sum(importance[name].double().sum() for name in branch)))
        else:
            found.append(float(by_unit[order[level:]].sum()))
    return found


def _monotone(losses: Sequence[float], levels: Sequence[int], *, carries: bool) -> Levels:
    """Fewer units never cost less; the loss of a branch is counted once."""
    rising = np.maximum.accumulate(np.array([*losses[:-1], 0.0])[::-1])[::-1]
    if levels[0] == 0 and not carries:
        rising[0] = 0.0
    return tuple(rising.tolist())


def _ablate(
    model: nn.Module, widths: Sequence[GroupLevels], data: Labelled, *, budget_s: float, progress: Progress
) -> dict[tuple[int, int], float]:
    """Measured rise by (group, number of the level), for some."""
    deadline = time.perf_counter() + budget_s
    few = Labelled(images=data.images[:ABLATION_IMAGES], labels=data.labels[:ABLATION_IMAGES])
    dense = sample_losses(model, few)
    wanted = [
        (number, round(quantile * (len(each.levels) - 2)))
        for quantile in MEASURED_QUANTILES
        for number, each in enumerate(widths)
        if len(each.levels) > 1
    ]
    wanted = list(dict.fromkeys(wanted))
    measured = {}
    for done, (number, level) in enumerate(wanted):
        if time.perf_counter() >= deadline:
            break
        progress("width ablations", done, len(wanted))
        each = widths[number]
        with narrowed_for_a_while(model, [(each.group, strongest_units(model, each.group, each.levels[level]))]):
            rise = (sample_losses(model, few) - dense).double()
        noise = float(rise.std()) / math.sqrt(len(rise)) if len(rise) > 1 else 0.0
        measured[number, level] = max(float(rise.mean()), noise, LEAST_LOSS)
    progress("width ablations", len(wanted), len(wanted))
    return measured


@contextmanager
def narrowed_for_a_while(model: nn.Module, kept: Sequence[tuple[WidthGroup, Sequence[int]]]) -> Iterator[None]:
    """Zero the other units of some groups, and put everything back afterwards."""
    names = {part.module for group, _ in kept for part in group.slices} | {
        name for group, units in kept if not units for name in group.branch
    }
    parameters = [parameter for name in names for parameter in model.get_submodule(name).parameters(recurse=False)]
    originals = [parameter.detach().clone() for parameter in parameters]
    try:
        for group, units in kept:
            mask_units(model, group, units)
        yield
    finally:
        with torch.no_grad():
            for parameter, original in zip(parameters, originals, strict=True):
                parameter.copy_(original)


def _scaled(estimates: Sequence[Sequence[float]], measured: Mapping[tuple[int, int], float]) -> list[list[float]]:
    if not measured:
        return [list(each) for each in estimates]
    rows = [(number, level) for number, each in enumerate(estimates) for level in range(len(each))]
    table = Estimates(
        loss=np.array([estimates[number][level] for number, level in rows]),
        layer=np.array([number for number, _ in rows], dtype=np.intp),
        pattern=np.zeros(len(rows), dtype=np.intp),
    )
    known = [row for row, key in enumerate(rows) if key in measured]
    scale = fit_loss_scale(
        table.rows(known), [measured[rows[row]] for row in known], layer_count=len(estimates), pattern_count=1
    )
    applied = iter(scale.apply(table).tolist())
    return [[next(applied) for _ in each] for each in estimates]
