"""ResNet-56 with fewer filters, by arithmetic alone: the experiment that pruning papers share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from sparseplan.commands.plan import CALIBRATION_IMAGES, calibration_of
from sparseplan.kernels.documents import write_text
from sparseplan.planner.capture import CapturedLayer, capture
from sparseplan.planner.width_loss import width_losses
from sparseplan.planner.widths import GroupLevels, LayerAxes, layer_axes, narrowed
from sparseplan.trainer.assignment import Assignment, WidthSparsity
from sparseplan.trainer.data import DataSplits

from .options import ExperimentOptions
from .ssl import CIFAR, DENSE, TAUGHT, stored, width_groups
from .variant import Variant, run_variants

FEWER = 2.13
"""Times fewer multiply-adds: where the best public figure was reached (93.53 -> 93.77 %)."""
STEPS = 8
"""Widths that each group may have."""
LOSS_BUDGET_S = 60.0


def resnet56_filters(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ResNet-56/CIFAR-10 with 2.13x fewer multiply-adds, by narrower layers alone."""
    data = options.splits("cifar10:")
    start = partial(stored, options, "resnet56")
    variants = (
        Variant(name=DENSE, network=start, recipe={"learning_rate": 0.01}),
        Variant(name=f"{FEWER}x fewer", network=start, assign=partial(_narrower, data, options), recipe=TAUGHT),
    )
    return run_variants("resnet56-filters", variants, data, options=options, say=say)


def _narrower(data: DataSplits, options: ExperimentOptions, model: nn.Module) -> Assignment:
    """Widths by their measured loss on the validation split; chosen once, kept beside the results."""
    path = options.out / "widths.json"
    groups = width_groups(model, CIFAR)
    if not path.exists():
        levels = tuple(GroupLevels(group=group, levels=_levels(group.units)) for group in groups.values())
        losses = width_losses(
            model,
            levels,
            calibration=calibration_of(data, CALIBRATION_IMAGES),
            budget_s=LOSS_BUDGET_S,
            progress=options.progress,
        )
        captured = capture(model, torch.zeros(1, *CIFAR)).layers
        kept = narrow_to(levels, losses, captured, fewer=FEWER)
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(kept))
    found: dict[str, int] = json.loads(path.read_text())
    return tuple(
        WidthSparsity(group=groups[name], kept=count) for name, count in found.items() if count < groups[name].units
    )


def _levels(units: int) -> tuple[int, ...]:
    return tuple(sorted({max(1, round(units * step / STEPS)) for step in range(1, STEPS + 1)}))


def narrow_to(
    widths: Sequence[GroupLevels],
    losses: Sequence[Sequence[float]],
    layers: Sequence[CapturedLayer],
    *,
    fewer: float,
) -> dict[str, int]:
    """Units that each group keeps, by name: the step with the least loss for its multiply-adds, until they suffice."""
    axes = layer_axes(layers, [each.group for each in widths])
    place = [len(each.levels) - 1 for each in widths]
    full = multiply_adds(layers, axes, [each.group.units for each in widths])

    def now(places: Sequence[int]) -> float:
        return multiply_adds(layers, axes, [each.levels[at] for each, at in zip(widths, places, strict=True)])

    while now(place) > full / fewer:
        price: dict[int, float] = {}
        for number, at in enumerate(place):
            if at > 0:
                lower = [*place[:number], at - 1, *place[number + 1 :]]
                price[number] = (losses[number][at - 1] - losses[number][at]) / max(now(place) - now(lower), 1.0)
        cheapest = min(price, key=price.__getitem__)
        place[cheapest] -= 1
    return {each.group.name: each.levels[at] for each, at in zip(widths, place, strict=True)}


def multiply_adds(layers: Sequence[CapturedLayer], axes: Mapping[str, LayerAxes], kept: Sequence[int]) -> float:
    """Of all layers, with so many units kept of each group."""
    total = 0.0
    for layer in layers:
        state = (axes[layer.name].c_in.channels(kept), axes[layer.name].c_out.channels(kept))
        total += layer.calls * narrowed(layer.problem, state).flop_useful / 2.0
    return total
