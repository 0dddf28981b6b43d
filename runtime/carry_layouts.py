"""Find where activations can stay blocked from one swapped layer to the next."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from ..kernels.layout import BLOCK_IMAGES
from ..kernels.spec import Layout
from .fuse import Fused


def blocked_outputs(fused: Fused, layouts: Mapping[str, Layout]) -> frozenset[str]:
    """Names of the swapped layers whose output none but swapped layers of the same blocked layout read.

    As input or as residual alike; these take it as it is, and no reorder lies between.

    Parameters
    ----------
    fused : Fused
        With residual additions and ReLUs absorbed.
    layouts : mapping
        Of the kernels, by name of the layer.
    """
    return frozenset(
        name
        for name, layout in layouts.items()
        if layout in BLOCK_IMAGES and name in fused.calls and _all_read(fused.calls[name], layout, layouts)
    )


def _all_read(node: fx.Node, layout: Layout, layouts: Mapping[str, Layout]) -> bool:
    readers = list(node.users)
    return bool(readers) and all(
        reader.op == "call_module" and layouts.get(str(reader.target)) == layout for reader in readers
    )
