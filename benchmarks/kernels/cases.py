"""What is measured: every layer under every batch, thread count, dtype, pattern and sparsity asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Dtype, Problem

from .layer_sets import LayerSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The values of each axis, in the order of measuring."""

    batches: tuple[int, ...]
    threads: tuple[int, ...]
    dtypes: tuple[Dtype, ...]
    patterns: tuple[str, ...]
    sparsities: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One layer under one setting; all kernels that can run it compete."""

    layer_set: str
    layer: str
    batch: int
    problem: Problem


def cases_of(sets: Sequence[LayerSet], grid: Grid) -> Iterator[Case]:
    """The cases of each layer lie together. A layer with weights of its own keeps its pattern and sparsity."""
    for chosen in sets:
        for layer in chosen.make():
            for batch in grid.batches:
                for threads in grid.threads:
                    for dtype in grid.dtypes:
                        sized = replace(layer.problem, n=layer.problem.n * batch, threads=threads, dtype=dtype)
                        for problem in _pruned(sized, grid):
                            yield Case(layer_set=chosen.name, layer=layer.name, batch=batch, problem=problem)


def _pruned(sized: Problem, grid: Grid) -> Iterator[Problem]:
    if sized.weights is not None:
        if sized.pattern in grid.patterns:
            yield sized
        return
    for pattern in grid.patterns:
        # Patterns that dictate their sparsity give the same problem for every one.
        yield from dict.fromkeys(
            sized.with_sparsity(pattern, sparsity) for sparsity in _sparsities(pattern, grid.sparsities)
        )


def _sparsities(pattern: str, asked: tuple[float, ...]) -> tuple[float, ...]:
    return (0.0,) if parse_pattern(pattern).is_dense or pattern.startswith("sas:") else asked
