"""Which channels layers must share: the width groups of a model, found by torch-pruning and checked by running it."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from .branches import Branch, find_branches, remove_branches
from .heads import head_groups
from .narrow import BATCH_NORMS, is_depthwise, mask_units, narrow, zero_parameters
from .schema import ChannelSlice, FixedWidth, WidthGroup

_FAILURES = (
    fx.proxy.TraceError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
)
"""What tracers, and models cut where they must not be, raise."""
_SAME_FRAC = 1e-3
"""Outputs closer than this, in parts of the largest, are the same up to float32 error; a wrong cut is off by 0.1."""
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
        raw = _pruning_groups(model, few)
    except _FAILURES as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        reasons.update(dict.fromkeys(layers, f"torch-pruning cannot follow the model: {line}"))
        raw = []
    for root, items in raw:
        if root in claimed:
            continue
        group = _regular_group(root, items, layers)
        if isinstance(group, WidthGroup):
            found.append(group)
        else:
            reasons.update((name, group) for name, _, out, _, _ in items if out)
    probe = _Probe(model, few)
    good = [*_sound(probe, found), *_first_sound_heads(probe, heads)]
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


_Item = tuple[str, nn.Module | None, bool, list[int], list[int]]
"""Module name, module (None for a bare parameter), whether output channels, indices, and those of the root."""


def _pruning_groups(model: nn.Module, example: Tensor) -> list[tuple[str, list[_Item]]]:
    """By root layer: what torch-pruning would prune with its output channels."""
    import torch_pruning

    # It traces by autograd and hooks; a copy keeps the model clean.
    traced = copy.deepcopy(model).eval().requires_grad_(True)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(traced, example_inputs=example, verbose=False)
        names = {module: name for name, module in traced.named_modules()}
        groups = []
        for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
            items = [item for item in _items(graph, group, names) if item is not None]
            groups.append((items[0][0], items))
    return groups


def _items(graph: Any, group: Any, names: Mapping[nn.Module, str]) -> Iterator[_Item | None]:
    for item in group:
        target = item.dep.target.module
        out = bool(graph.is_out_channel_pruning_fn(item.dep.handler))
        if isinstance(target, nn.Parameter):
            yield "", None, out, list(item.idxs), list(item.root_idxs)
        elif target in names and any(True for _ in target.parameters(recurse=False)):
            yield names[target], target, out, list(item.idxs), list(item.root_idxs)


def _regular_group(root: str, items: Sequence[_Item], layers: Collection[str]) -> WidthGroup | str:
    """The group as slices, or why it has none."""
    for name, module, _, _, _ in items:
        if module is None:
            return "a parameter outside of all layers shares its channels"
        if isinstance(module, nn.Conv2d | nn.Linear):
            if name not in layers:
                return f"its channels are also those of {name}, which is not planned"
        elif not isinstance(module, BATCH_NORMS):
            return f"{name} ({type(module).__name__}) works across its channels"
    if not any(not out for _, _, out, _, _ in items):
        return "it is an output of the network"
    channels = max(max(item[4]) for item in items) + 1
    unit_of = _units(items, channels)
    units = max(unit_of) + 1
    if units < 2:
        return "its channels can only go all together"
    slices: dict[tuple[str, str], ChannelSlice] = {}
    for (name, axis), mapping in _by_axis(items, unit_of).items():
        part = _slice(name, axis, mapping, units)
        if part is None:
            return f"its channels lie irregularly in {name}"
        slices[name, axis] = part
    return WidthGroup(name=root, units=units, slices=tuple(slices.values()))


def _units(items: Sequence[_Item], channels: int) -> list[int]:
    """[channels]: number of the unit of each channel; channels at one place of each convolution group go together."""
    parent = list(range(channels))

    def first(channel: int) -> int:
        while parent[channel] != channel:
            channel = parent[channel]
        return channel

    for _, module, out, indices, roots in items:
        if not isinstance(module, nn.Conv2d) or module.groups == 1 or is_depthwise(module):
            continue
        size = (module.out_channels if out else module.in_channels) // module.groups
        place: dict[int, int] = {}
        for index, root in zip(indices, roots, strict=True):
            other = first(place.setdefault(index % size, root))
            parent[first(root)] = other
    order: dict[int, int] = {}
    return [order.setdefault(first(channel), len(order)) for channel in range(channels)]


def _by_axis(items: Sequence[_Item], unit_of: Sequence[int]) -> dict[tuple[str, str], dict[int, set[int]]]:
    """By module and axis: the channels of each unit there."""
    found: dict[tuple[str, str], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for name, module, out, indices, roots in items:
        assert module is not None
        axis = "out" if out or is_depthwise(module) else "in"
        for index, root in zip(indices, roots, strict=True):
            found[name, axis][unit_of[root]].add(index)
    return found


def _slice(name: str, axis: str, mapping: Mapping[int, set[int]], units: int) -> ChannelSlice | None:
    """The slice that has these channels, if there is one."""
    if set(mapping) != set(range(units)):
        return None
    own = sorted(mapping[0])
    run = 1
    while run < len(own) and own[run] == own[0] + run:
        run += 1
    # With one offset per run; where all of a unit's channels are in a row there is one run.
    if len(own) % run:
        return None
    part = ChannelSlice(module=name, axis="out" if axis == "out" else "in", offsets=tuple(own[::run]), run=run)
    matches = all(part.channels([unit]) == sorted(channels) for unit, channels in mapping.items())
    return part if matches else None


class _Probe:
    """Runs a model, with other numbers for weights, cut and masked: both must compute the same."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._example = example
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._generator = torch.Generator().manual_seed(0)
        for module in self._model.modules():
            self._randomise(module)

    def agrees(self, groups: Sequence[WidthGroup]) -> bool:
        """Whether groups can be cut, all at once: about a third of the units of each, drawn by chance."""
        masked, cut = copy.deepcopy(self._model), copy.deepcopy(self._model)
        try:
            kept = {group: self._draw(group) for group in groups}
            for group, units in kept.items():
                mask_units(masked, group, units)
            narrow(cut, kept)
            return self._same(masked, cut)
        except _FAILURES:
            return False

    def agrees_without(self, branches: Sequence[tuple[str, ...]]) -> bool:
        """Whether the network without these branches computes what zeros in all of them do."""
        masked, cut = copy.deepcopy(self._model), copy.deepcopy(self._model)
        try:
            for names in branches:
                for name in names:
                    zero_parameters(masked.get_submodule(name))
            traced = fx.symbolic_trace(cut)
            remove_branches(traced, {frozenset(names) for names in branches})
            return self._same(masked, traced)
        except _FAILURES:
            return False

    def _same(self, masked: nn.Module, cut: nn.Module) -> bool:
        expected, seen = self._outputs(masked), self._outputs(cut)
        return len(expected) == len(seen) and all(
            one.shape == other.shape and bool(((one - other).abs().max() <= _SAME_FRAC * one.abs().max()).item())
            for one, other in zip(expected, seen, strict=True)
        )

    @torch.no_grad()
    def _outputs(self, model: nn.Module) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(model(self._example)) if isinstance(leaf, Tensor)]

    def _draw(self, group: WidthGroup) -> list[int]:
        order = torch.randperm(group.units, generator=self._generator)
        return sorted(order[: max(1, 2 * group.units // 3)].tolist())

    def _randomise(self, module: nn.Module) -> None:
        """Zeros of a network that starts as the identity, for one, would hide a wrong cut."""
        values = {**module._parameters, **module._buffers}
        norm = isinstance(module, BATCH_NORMS)
        for name, tensor in values.items():
            if tensor is None or not tensor.is_floating_point():
                continue
            if tensor.dim() >= 2 and name == "weight":
                fan_in = tensor[0].numel()
                drawn = torch.randn(tensor.shape, generator=self._generator) * (2.0 / fan_in) ** 0.5
            elif name in ("bias", "running_mean"):
                drawn = 0.1 * torch.randn(tensor.shape, generator=self._generator)
            elif norm and name in ("weight", "running_var"):
                drawn = 0.5 + torch.rand(tensor.shape, generator=self._generator)
            else:
                continue
            with torch.no_grad():
                tensor.copy_(drawn)


def _sound(probe: _Probe, groups: Sequence[WidthGroup]) -> list[WidthGroup]:
    """The groups that can be cut, by halving where not all can."""
    if not groups:
        return []
    if probe.agrees(groups):
        return list(groups)
    if len(groups) == 1:
        return []
    half = len(groups) // 2
    return [*_sound(probe, groups[:half]), *_sound(probe, groups[half:])]


def _first_sound_heads(probe: _Probe, heads: Sequence[WidthGroup]) -> list[WidthGroup]:
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
    model: nn.Module, probe: _Probe, groups: Sequence[WidthGroup], layers: Collection[str]
) -> tuple[WidthGroup, ...]:
    """The same groups; those inside a residual branch that can go as a whole know it."""
    try:
        branches = find_branches(fx.symbolic_trace(copy.deepcopy(model)))
    except _FAILURES:
        return tuple(groups)
    marked = {group: _inside(group, groups, branches, layers) for group in groups}
    wanted = sorted(set(marked.values()) - {()})
    sound = set(_sound_branches(probe, wanted))
    return tuple(
        group.model_copy(update={"branch": marked[group] if marked[group] in sound else ()}) for group in groups
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


def _sound_branches(probe: _Probe, branches: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The branches that can go, by halving where not all can."""
    if not branches:
        return []
    if probe.agrees_without(branches):
        return list(branches)
    if len(branches) == 1:
        return []
    half = len(branches) // 2
    return [*_sound_branches(probe, branches[:half]), *_sound_branches(probe, branches[half:])]
