"""The widths that each group may keep: levels along the staircase of the time that its layers take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..kernels.pattern import parse_pattern
from .capture import CapturedLayer
from .kernel_times import DenseTimes
from .options import NARROWING, REMOVAL
from .schema import WidthGroup
from .width_levels import asked_counts, levels_by_time
from .widths import GroupLevels, Widths, layer_axes, narrowed

MOST_LEVELS = 16
"""Of a group whose layers may only be dense, at each pair of widths."""
MOST_LEVELS_AND_PATTERNS = 4
"""Of a group whose layers may skip as well: every pair of widths has all patterns and sparsities."""
MOST_LEVELS_JOINED = 4
"""Of a group that is joined with others in front of a layer: there are as many widths as sums of their levels."""


def widths_of(
    layers: Sequence[CapturedLayer], patterns: Sequence[str], groups: Sequence[WidthGroup], dense_of: DenseTimes
) -> Widths:
    """Levels of each group along the staircase of the time that its layers take, all other widths being whole."""
    kinds = {kind for text in patterns for kind in parse_pattern(text).kinds}
    narrowable, removable = not NARROWING.isdisjoint(kinds), REMOVAL in kinds
    if not removable:
        groups = [group.model_copy(update={"branch": ()}) for group in groups]
    groups = [group for group in groups if narrowable or group.branch]
    whole = Widths(
        groups=tuple(GroupLevels(group=group, levels=(group.units,)) for group in groups),
        axes=layer_axes(layers, groups),
    )
    by_name = {layer.name: layer for layer in layers}
    members = [[by_name[name] for name in whole.members(number)] for number in range(len(groups))]
    asked = [asked_counts(group.units) if narrowable else (group.units,) for group in groups]
    dense_of.prepare(
        narrowed(layer.problem, whole.at_level(layer.name, number, count))
        for number in range(len(groups))
        for layer in members[number]
        for count in asked[number]
    )
    joined = {
        number
        for axes in whole.axes.values()
        for axis in (axes.c_in, axes.c_out)
        if len(axis.parts) > 1
        for number, _ in axis.parts
    }
    skipping = kinds - NARROWING - {REMOVAL}

    def levels(number: int) -> tuple[int, ...]:
        def time_s(count: int) -> float:
            return sum(
                layer.calls * dense_of(narrowed(layer.problem, whole.at_level(layer.name, number, count))).time_s.median
                for layer in members[number]
            )

        most = MOST_LEVELS_AND_PATTERNS if skipping else MOST_LEVELS
        return levels_by_time(
            groups[number].units,
            time_s,
            most=min(most, MOST_LEVELS_JOINED) if number in joined else most,
            removable=bool(groups[number].branch),
            narrowable=narrowable,
        )

    found = tuple(GroupLevels(group=group, levels=levels(number)) for number, group in enumerate(groups))
    return replace(whole, groups=found)
