"""The sparsities that are worth asking about."""

from __future__ import annotations

import math

from ..kernels.groups import free_density, grid_shape
from ..kernels.pattern import BlockPart, Pattern

SPARSITY_LEVELS = (0.25, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98)
"""Denser towards the high end: time goes with the density, and 98 % has half the work of 96 %."""


def levels_of(pattern: Pattern, weight_shape: tuple[int, int, int, int]) -> tuple[float, ...]:
    """Sparsities that a pattern can take in a weight [K, C, R, S], ascending.

    Whole groups go, so the share of the weights that goes is a step of the pattern's grid: a filter of 16 is 6.25 %.
    """
    if pattern.fixed_sparsity is not None:
        return (pattern.fixed_sparsity,)
    levels = {_on_grid(pattern, weight_shape, max(level, pattern.least_sparsity)) for level in SPARSITY_LEVELS}
    return tuple(sorted(level for level in levels if level > 0.0))


def _on_grid(pattern: Pattern, weight_shape: tuple[int, int, int, int], sparsity: float) -> float:
    """The sparsity that the mask for `sparsity` has, where that is known from counts of groups alone."""
    counts = [math.prod(grid_shape(weight_shape, part)) for part in pattern.parts if isinstance(part, BlockPart)]
    if len(counts) < len(pattern.parts):
        return sparsity
    kept = [_kept(count, free_density(pattern, sparsity)) for count in counts]
    exact = round(1.0 - math.prod(keep / count for keep, count in zip(kept, counts, strict=True)), 9)
    # Training starts from the sparsity in the plan, which must lead to the same groups again.
    again = [_kept(count, free_density(pattern, exact)) for count in counts]
    return exact if again == kept else sparsity


def _kept(count: int, density: float) -> int:
    return max(1, round(density * count))
