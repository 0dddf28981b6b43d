"""Which channels layers must share: the width groups of a model, found by torch-pruning and checked by running it."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from .branches import Branch, find_branches
from .cut_probe import FAILURES, Probe, sound
from .heads import head_groups
from .pruning_groups import pruning_groups, regular_group
from .schema import FixedWidth, WidthGroup

_PROBE_BATCH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """The widths of a model that can be decided.

    Attributes
    ----------
    groups : tuple of WidthGroup
        Each was checked: cut out for good it computes what zeros in its place do.
    fixed : tuple of FixedWidth
        Layers whose output width stays, and why.
    """

    groups: tuple[WidthGroup, ...]
    fixed: tuple[FixedWidth, ...]


NO_COUPLING = Coupling(groups=(), fixed=())


def couple(model: nn.Module, example: Tensor, *, layers: Collection[str]) -> Coupling:
    """Find the width groups of a model and the residual branches that can go as a whole.

    Parameters
    ----------
    model : nn.Module
        In eval mode; left as it was.
    layers : collection of str
        Layers that can be planned; a group that needs another one with a weight stays as it is.
    """
    few = example[:_PROBE_BATCH]
    found: list[WidthGroup] = []
    reasons: dict[str, str] = {}
    heads = list(head_groups(model))
    claimed = {part.module for group in heads for part in group.slices if part.axis == "out"}
    try:
        raw = pruning_groups(model, few)
    except FAILURES as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        reasons.update(dict.fromkeys(layers, f"torch-pruning cannot follow the model: {line}"))
        raw = []
    for root, items in raw:
        if root in claimed:
            continue
        group = regular_group(root, items, layers)
        if isinstance(group, WidthGroup):
            found.append(group)
        else:
            reasons.update((name, group) for name, _, out, _, _ in items if out)
    probe = Probe(model, few)
    good = [*sound(found, probe.agrees), *_first_sound_heads(probe, heads)]
    if not probe.agrees(good):
        found, heads, good = [*found, *heads], [], []
    for group in found:
        reasons.update(
            dict.fromkeys(_makers(group), "cut there, the model does not compute what zeros in its place do")
        )
    for group in heads:
        reasons.update(dict.fromkeys(_makers(group), "how its attention module splits heads is not understood"))
    decided = {name for group in good for name in _makers(group)}
    fixed = tuple(
        FixedWidth(name=name, reason=reasons.get(name, "torch-pruning found no channels of its own"))
        for name in layers
        if name not in decided
    )
    return Coupling(groups=_with_branches(model, probe, good, layers), fixed=fixed)


def _makers(group: WidthGroup) -> list[str]:
    """Modules whose output channels a group has."""
    return [part.module for part in group.slices if part.axis == "out"]


def _first_sound_heads(probe: Probe, heads: Sequence[WidthGroup]) -> list[WidthGroup]:
    """Of the ways in which each attention block may split its heads the one that holds."""
    found: dict[str, WidthGroup] = {}
    taken: set[str] = set()
    for group in heads:
        modules = {part.module for part in group.slices}
        if taken.isdisjoint(modules) and probe.agrees([group]):
            found[group.name] = group
            taken |= modules
    return list(found.values())


def _with_branches(
    model: nn.Module, probe: Probe, groups: Sequence[WidthGroup], layers: Collection[str]
) -> tuple[WidthGroup, ...]:
    """The same groups; those inside a residual branch that can go as a whole know it."""
    try:
        branches = find_branches(fx.symbolic_trace(copy.deepcopy(model)))
    except FAILURES:
        return tuple(groups)
    marked = {group: _inside(group, groups, branches, layers) for group in groups}
    wanted = sorted(set(marked.values()) - {()})
    can_go = set(sound(wanted, probe.agrees_without))
    return tuple(
        group.model_copy(update={"branch": marked[group] if marked[group] in can_go else ()}) for group in groups
    )


def _inside(
    group: WidthGroup, groups: Sequence[WidthGroup], branches: Sequence[Branch], layers: Collection[str]
) -> tuple[str, ...]:
    """The modules of the smallest branch that a group is inside of, if the widths inside say it all."""
    for branch in branches:
        inside = [each for each in groups if {part.module for part in each.slices} <= branch.modules]
        touched = {part.module for each in inside for part in each.slices}
        if group in inside:
            # Every layer of the branch must have one of these widths, or it would not be known to be gone.
            return tuple(sorted(branch.modules)) if touched >= branch.modules.intersection(layers) else ()
    return ()
