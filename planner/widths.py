"""How the widths of a network hang together: levels of each group, and which of them each layer reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ..kernels.problem import Problem
from .capture import CapturedLayer
from .schema import WidthGroup

State = tuple[int, int]
"""Input and output channels of a layer; 0 where it went with its branch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLevels:
    """A width group and the numbers of units that it may keep, ascending; the last is all of them."""

    group: WidthGroup
    levels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Channels of a layer's input or output: so many for each unit of some groups, and the rest.

    Attributes
    ----------
    parts : tuple
        (number of the group, channels for each unit that it keeps).
    """

    parts: tuple[tuple[int, int], ...]
    rest: int

    @property
    def only(self) -> int | None:
        """The group that alone decides, if one does."""
        return self.parts[0][0] if len(self.parts) == 1 else None

    def channels(self, kept: Sequence[int]) -> int:
        """With so many units kept of each group."""
        return self.rest + sum(each * kept[group] for group, each in self.parts)

    def reachable(self, groups: Sequence[GroupLevels]) -> tuple[int, ...]:
        """All numbers of channels that there can be, ascending."""
        totals = {self.rest}
        for group, each in self.parts:
            totals = {total + each * level for total in totals for level in groups[group].levels}
        return tuple(sorted(totals))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerAxes:
    """Both widths of a layer; `together` where one group decides both, as in a depth-wise convolution."""

    c_in: Axis
    c_out: Axis

    @property
    def together(self) -> bool:
        return self.c_in.only is not None and self.c_in.only == self.c_out.only

    @property
    def is_fixed(self) -> bool:
        return not self.c_in.parts and not self.c_out.parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """All width groups with their levels, and the axes of every layer by name."""

    groups: tuple[GroupLevels, ...]
    axes: Mapping[str, LayerAxes]

    @property
    def full(self) -> tuple[int, ...]:
        """Units of each group where nothing is removed."""
        return tuple(each.group.units for each in self.groups)

    def states(self, layer: CapturedLayer) -> tuple[State, ...]:
        """The widths that a layer can have; those are left out in which only half of a branch is gone."""
        axes = self.axes[layer.name]
        if axes.together:
            group = axes.c_in.only
            assert group is not None
            kept = [self._with(group, level) for level in self.groups[group].levels]
            return tuple((axes.c_in.channels(each), axes.c_out.channels(each)) for each in kept)
        pairs = product(axes.c_in.reachable(self.groups), axes.c_out.reachable(self.groups))
        return tuple(pair for pair in pairs if not self._is_torn(axes, pair))

    def _is_torn(self, axes: LayerAxes, state: State) -> bool:
        first, second = (self._branch_of(axis) for axis in (axes.c_in, axes.c_out))
        return bool(first) and first == second and (state[0] == 0) != (state[1] == 0)

    def _branch_of(self, axis: Axis) -> tuple[str, ...]:
        return () if axis.only is None else self.groups[axis.only].group.branch

    def _with(self, group: int, level: int) -> tuple[int, ...]:
        return tuple(level if number == group else units for number, units in enumerate(self.full))

    def members(self, group: int) -> Iterator[str]:
        """Layers whose time depends on a group."""
        for name, axes in self.axes.items():
            if any(number == group for number, _ in (*axes.c_in.parts, *axes.c_out.parts)):
                yield name

    def at_level(self, layer: str, group: int, level: int) -> State:
        """Widths of a layer with one group at a level and all others whole."""
        axes, kept = self.axes[layer], self._with(group, level)
        return axes.c_in.channels(kept), axes.c_out.channels(kept)


def layer_axes(layers: Sequence[CapturedLayer], groups: Sequence[WidthGroup]) -> dict[str, LayerAxes]:
    """The axes of every layer."""
    parts: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for number, group in enumerate(groups):
        for part in group.slices:
            parts.setdefault((part.module, part.axis), []).append((number, part.channels_per_unit))
    found = {}
    for layer in layers:
        problem = layer.problem
        out = _axis(problem.c_out, parts.get((layer.name, "out"), []), groups)
        depthwise = problem.groups == problem.c_in == problem.c_out > 1
        c_in = out if depthwise else _axis(problem.c_in, parts.get((layer.name, "in"), []), groups)
        found[layer.name] = LayerAxes(c_in=c_in, c_out=out)
    return found


def _axis(channels: int, parts: Sequence[tuple[int, int]], groups: Sequence[WidthGroup]) -> Axis:
    return Axis(parts=tuple(parts), rest=channels - sum(each * groups[group].units for group, each in parts))


def narrowed(problem: Problem, state: State) -> Problem:
    """The problem with other widths, dense."""
    c_in, c_out = state
    depthwise = problem.groups == problem.c_in == problem.c_out > 1
    groups = c_out if depthwise else problem.groups
    return replace(problem.as_dense(), c_in=c_in, c_out=c_out, groups=groups)
