"""What torch-pruning says must go together, as slices of channels."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .narrow import BATCH_NORMS, is_depthwise
from .schema import ChannelSlice, WidthGroup

Item = tuple[str, nn.Module | None, bool, list[int], list[int]]
"""Module name, module (None for a bare parameter), whether output channels, indices, and those of the root."""


def pruning_groups(model: nn.Module, example: Tensor) -> list[tuple[str, list[Item]]]:
    """By root layer: what torch-pruning would prune with its output channels.

    Raises
    ------
    Exception
        Whatever torch-pruning raises on a model that it cannot follow; see `cut_probe.FAILURES`.
    """
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


def _items(graph: Any, group: Any, names: Mapping[nn.Module, str]) -> Iterator[Item | None]:
    for item in group:
        target = item.dep.target.module
        out = bool(graph.is_out_channel_pruning_fn(item.dep.handler))
        if isinstance(target, nn.Parameter):
            yield "", None, out, list(item.idxs), list(item.root_idxs)
        elif target in names and any(True for _ in target.parameters(recurse=False)):
            yield names[target], target, out, list(item.idxs), list(item.root_idxs)


def regular_group(root: str, items: Sequence[Item], layers: Collection[str]) -> WidthGroup | str:
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


def _units(items: Sequence[Item], channels: int) -> list[int]:
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


def _by_axis(items: Sequence[Item], unit_of: Sequence[int]) -> dict[tuple[str, str], dict[int, set[int]]]:
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
