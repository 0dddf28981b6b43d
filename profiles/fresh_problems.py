"""Problems that no profile holds: random layers, for judging a performance model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..kernels.pattern import parse_pattern
from ..kernels.problem import Problem
from .schema import Budget
from .spread import FAMILIES, MOST_FLOP, MOST_WEIGHTS, Family

LARGEST_BATCH, MOST_ROWS = 128, 512
CHANNELS = (8, 1024)
LINEAR_WIDTHS = (48, 4096)
IMAGE_SIZES = (4, 112)
KERNEL_SIZES = (1, 3, 5, 7)
KERNEL_ODDS = (0.35, 0.5, 0.1, 0.05)
"""As in the networks in use: mostly 3x3 and 1x1."""
STRIDE_ODDS = 0.15
"""Share of convolutions with stride 2."""
DEPTHWISE_ODDS = 0.12
"""Share, among those with larger kernels than 1x1, with one channel a group, as MobileNets have."""
SPARSITY_RANGE = (0.3, 0.97)
TRIES = 1000
"""Draws until one fits the budget."""


def fresh_problems(budget: Budget, threads: int, *, seed: int) -> Iterator[Problem]:
    """Random layers under every family of sparsity in turn, without end.

    Sizes are drawn evenly in their logarithms, so that small layers come as often as large ones; they are as large as
    those that a profile of the same budget measures.
    """
    generator = np.random.default_rng(seed)
    while True:
        for family in FAMILIES:
            yield _draw(family, budget, threads, generator)


def under_families(layer: Problem, *, seed: int) -> Iterator[Problem]:
    """A dense layer under every family of sparsity that its operation and dtype allow, at random sparsities."""
    generator = np.random.default_rng(seed)
    for family in FAMILIES:
        if family.op == layer.op:
            yield _sparse(replace(layer, dtype=family.dtype), family, generator)


def _draw(family: Family, budget: Budget, threads: int, generator: np.random.Generator) -> Problem:
    for _ in range(TRIES):
        problem = _conv(threads, generator) if family.op == "conv2d" else _linear(threads, generator)
        if problem.flop_dense_equiv <= MOST_FLOP[budget] * threads and problem.weight_count <= MOST_WEIGHTS[budget]:
            return _sparse(replace(problem, dtype=family.dtype), family, generator)
    raise AssertionError(f"no layer of the budget {budget!r} in {TRIES} draws")


def _sparse(problem: Problem, family: Family, generator: np.random.Generator) -> Problem:
    if parse_pattern(family.pattern).is_dense:
        return problem
    return problem.with_sparsity(family.pattern, float(generator.uniform(*SPARSITY_RANGE)))


def _conv(threads: int, generator: np.random.Generator) -> Problem:
    kernel = int(generator.choice(KERNEL_SIZES, p=KERNEL_ODDS))
    size = max(_log_uniform(IMAGE_SIZES, generator), kernel)
    stride = 2 if generator.random() < STRIDE_ODDS else 1
    c_in, c_out = _log_uniform(CHANNELS, generator), _log_uniform(CHANNELS, generator)
    depthwise = kernel > 1 and generator.random() < DEPTHWISE_ODDS
    return Problem(
        op="conv2d",
        n=_log_uniform((1, LARGEST_BATCH), generator),
        c_in=c_in,
        c_out=c_in if depthwise else c_out,
        h_in=size,
        w_in=size,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(kernel // 2, kernel // 2),
        groups=c_in if depthwise else 1,
        threads=threads,
    )


def _linear(threads: int, generator: np.random.Generator) -> Problem:
    return Problem(
        op="linear",
        n=_log_uniform((1, MOST_ROWS), generator),
        c_in=_log_uniform(LINEAR_WIDTHS, generator),
        c_out=_log_uniform(LINEAR_WIDTHS, generator),
        threads=threads,
    )


def _log_uniform(limits: Sequence[int], generator: np.random.Generator) -> int:
    low, high = np.log(limits[0]), np.log(limits[1] + 1)
    return min(int(np.exp(generator.uniform(low, high))), limits[1])
