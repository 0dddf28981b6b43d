"""Which layers go back to dense: what several processes say of them together."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..profiles.timing import pool
from .schema import LayerTime

DOUBT = 1.25
"""A layer nearer to its dense rival than this factor, faster or slower, may win in one process and lose in the next:
they move by 5 to 15 % either way."""


def in_doubt(layers: Sequence[LayerTime], fixed: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the layers that one process cannot judge; those that stay whatever they take are not judged."""
    return tuple(layer.name for layer in layers if layer.name not in fixed and 1.0 / DOUBT < _ratio(layer) < DOUBT)


def pool_layers(takes: Sequence[Sequence[LayerTime]], fixed: Collection[str] = ()) -> tuple[LayerTime, ...]:
    """The layers of the first take, with the times of all takes in which they are.

    Parameters
    ----------
    fixed : collection of str
        Layers that no dense one can stand in for: those under SAS.

    Returns
    -------
    tuple of LayerTime
        `reverted` is True where the median of planned over dense, each from one process, is not below 1.
    """
    pooled = []
    for first in takes[0]:
        found = [layer for take in takes for layer in take if layer.name == first.name]
        loses = bool(np.median([_ratio(layer) for layer in found]) >= 1.0)
        pooled.append(
            first.model_copy(
                update={
                    "time_s": pool([layer.time_s for layer in found]),
                    "dense_time_s": pool([layer.dense_time_s for layer in found]),
                    "max_abs_error": max(layer.max_abs_error for layer in found),
                    "reverted": loses and first.name not in fixed,
                }
            )
        )
    return tuple(pooled)


def _ratio(layer: LayerTime) -> float:
    return layer.time_s.median / layer.dense_time_s.median
