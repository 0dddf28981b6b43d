"""The network with all zeros of a decision in it for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from ..kernels.pattern import parse_pattern
from .ablation import PrunedWeight, WeightChoice, pruned_at_once
from .layer_weights import layer_weight, replaced
from .narrow import left_of, mask_of_left, unit_order
from .network_time import Network, Picked
from .options import NO_KERNEL
from .schema import WidthGroup
from .width_loss import narrowed_for_a_while
from .widths import GroupLevels


@dataclass(frozen=True, slots=True, kw_only=True)
class Stitching:
    """What a decision takes out of a network.

    Attributes
    ----------
    choices : tuple of WeightChoice
        The pruned layers.
    kept : tuple of int
        Units that each width group keeps.
    """

    choices: tuple[WeightChoice, ...]
    kept: tuple[int, ...]


def stitching(network: Network, picked: Picked) -> Stitching:
    """What is pruned and narrowed, whatever runs it."""
    return Stitching(
        choices=tuple(
            WeightChoice(layer=layer.layer.name, pattern=option.candidate.pattern, sparsity=option.candidate.sparsity)
            for layer, option in zip(network.layers, picked.layers, strict=True)
            if option.candidate.kernel != NO_KERNEL and not parse_pattern(option.candidate.pattern).is_dense
        ),
        kept=picked.kept,
    )


class Stitcher:
    """Puts stitchings into a model.

    Widths go first, the weakest units of the dense weights; then what is skipped in what is left. Refitted weights keep
    their own zeros where no width cuts them; cut ones, and all where nothing was refitted, have zeros by magnitude.

    Parameters
    ----------
    model : nn.Module
        With its dense weights.
    widths : sequence of GroupLevels
        The groups, in the order of `Stitching.kept`.
    refitted : callable or None
        The refitted weight of a choice, [K, C, R, S]; None where weights go by magnitude.
    """

    def __init__(self, model: nn.Module, widths: tuple[GroupLevels, ...], refitted: PrunedWeight | None) -> None:
        self._model = model
        self._groups = [each.group for each in widths]
        self._refitted = refitted
        self._orders: dict[int, list[int]] = {}

    @contextmanager
    def carrying(self, plan: Stitching) -> Iterator[None]:
        """The model with all of it, until the end of the block."""
        narrowed = [
            (group, self._strongest(number, kept))
            for number, (group, kept) in enumerate(zip(self._groups, plan.kept, strict=True))
            if kept < group.units
        ]
        refitted = self._refitted
        start = {} if refitted is None else {choice.layer: refitted(choice) for choice in plan.choices}
        with replaced(self._model, start), narrowed_for_a_while(self._model, narrowed):
            weights = {choice.layer: self._cut(choice, narrowed) for choice in plan.choices}
            with replaced(self._model, weights):
                yield

    def _strongest(self, number: int, kept: int) -> list[int]:
        if number not in self._orders:
            self._orders[number] = unit_order(self._model, self._groups[number]).tolist()
        return sorted(self._orders[number][:kept])

    def _cut(self, choice: WeightChoice, narrowed: list[tuple[WidthGroup, list[int]]]) -> Tensor:
        weight = layer_weight(self._model, choice.layer)
        rows, columns = left_of(self._model, choice.layer, narrowed)
        if (len(rows), len(columns)) != tuple(weight.shape[:2]):
            pattern = parse_pattern(choice.pattern)
            return weight * mask_of_left(weight, (rows, columns), pattern, choice.sparsity)
        return weight.clone() if self._refitted is not None else pruned_at_once(self._model)(choice)
