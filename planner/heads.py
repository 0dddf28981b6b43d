"""Attention heads as width groups: own code, because torch-pruning's dependency graph sees no heads.

It tracks channels as they are; a projection that is split into queries, keys and values and reshaped into heads loses
the order of its channels there (it names 3 * 384 columns of an output projection that has 384). What heads are is
written in the module that reshapes: a number of heads, projections of as many rows, and an output projection.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from torch import nn

from .schema import ChannelSlice, HeadCount, WidthGroup

_COUNTS = ("heads", "num_heads", "n_heads", "n_head", "nhead", "num_attention_heads")
_WIDTHS = ("all_head_size", "inner_dim", "attention_head_width")
"""Attributes that hold the number of heads, and the channels of all heads together."""


def head_groups(model: nn.Module) -> Iterator[WidthGroup]:
    """What might be the heads of each attention block; whoever takes them must check them by running the model."""
    for name, module in model.named_modules():
        count = next((value for key in _COUNTS if isinstance(value := getattr(module, key, None), int)), None)
        linears = {path: child for path, child in module.named_modules() if isinstance(child, nn.Linear)}
        if count is None or count < 2 or len(linears) < 2:
            continue
        for inner in _projections(linears, count):
            yield _group(name, module, count, inner)


def _projections(linears: dict[str, nn.Linear], heads: int) -> Iterator[tuple[ChannelSlice, ...]]:
    """(slices of queries, keys and values; of the output), the names within the module."""
    for out_name, out in linears.items():
        if out.in_features % heads:
            continue
        size, width = out.in_features // heads, out.in_features
        read = ChannelSlice(module=out_name, axis="in", offsets=(0,), run=size)
        others = {path: child for path, child in linears.items() if path != out_name}
        for path, child in others.items():
            if child.out_features == 3 * width:
                for offsets, run in (((0, width, 2 * width), size), ((0,), 3 * size)):
                    yield ChannelSlice(module=path, axis="out", offsets=offsets, run=run), read
        alike = [path for path, child in others.items() if child.out_features == width]
        for three in combinations(alike, 3):
            yield *(ChannelSlice(module=path, axis="out", offsets=(0,), run=size) for path in three), read


def _group(name: str, module: nn.Module, heads: int, inner: tuple[ChannelSlice, ...]) -> WidthGroup:
    prefix = f"{name}." if name else ""
    slices = tuple(part.model_copy(update={"module": prefix + part.module}) for part in inner)
    width = inner[-1].run * heads
    counted = [
        HeadCount(module=name, attribute=key, per_unit=getattr(module, key) // heads)
        for key, expected in (*((key, heads) for key in _COUNTS), *((key, width) for key in _WIDTHS))
        if getattr(module, key, None) == expected
    ]
    return WidthGroup(name=slices[0].module, units=heads, slices=slices, head_counts=tuple(counted))
