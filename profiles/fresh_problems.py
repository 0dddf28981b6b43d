"""Problems that no profile holds: random layers, for judging a performance model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..kernels.pattern import parse_pattern
from ..kernels.problem import Problem
from ..kernels.spec import Device
from . import gpu_spread
from .problem_limits import ProblemLimits
from .schema import Budget
from .spread import FAMILIES, LIMITS, Family

CHANNELS = (8, 1024)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Sizes of random layers, and their families, as profiles of a device have them.

    Attributes
    ----------
    limits : mapping
        By budget.
    """

    families: tuple[Family, ...]
    largest_batch: int
    most_rows: int
    linear_widths: tuple[int, int]
    limits: Mapping[Budget, ProblemLimits]


RANGES: Mapping[Device, Range] = {
    "cpu": Range(
        families=FAMILIES,
        largest_batch=128,
        most_rows=512,
        linear_widths=(48, 4096),
        limits=LIMITS,
    ),
    "cuda": Range(
        families=gpu_spread.GPU_FAMILIES,
        largest_batch=gpu_spread.BATCHES[-1],
        most_rows=gpu_spread.ROWS[-1],
        linear_widths=(64, 8192),
        limits=gpu_spread.GPU_LIMITS,
    ),
}


def fresh_problems(budget: Budget, threads: int, *, seed: int, device: Device = "cpu") -> Iterator[Problem]:
    """Random layers under every family of sparsity in turn, without end.

    Sizes are drawn evenly in their logarithms, so that small layers come as often as large ones; they are as large as
    those that a profile of the same budget measures.
    """
    generator = np.random.default_rng(seed)
    while True:
        for family in RANGES[device].families:
            yield _draw(family, budget, threads, generator, RANGES[device])


def under_families(layer: Problem, *, seed: int, device: Device = "cpu") -> Iterator[Problem]:
    """A dense layer under every family of sparsity that its operation and dtype allow, at random sparsities."""
    generator = np.random.default_rng(seed)
    for family in RANGES[device].families:
        if family.op == layer.op:
            yield _sparse(replace(layer, dtype=family.dtype), family, generator)


def _draw(family: Family, budget: Budget, threads: int, generator: np.random.Generator, sizes: Range) -> Problem:
    make = _conv if family.op == "conv2d" else _linear
    for _ in range(TRIES):
        problem = make(threads, generator, sizes)
        if sizes.limits[budget].admit(problem):
            return _sparse(replace(problem, dtype=family.dtype), family, generator)
    raise AssertionError(f"no layer of the budget {budget!r} in {TRIES} draws")


def _sparse(problem: Problem, family: Family, generator: np.random.Generator) -> Problem:
    if parse_pattern(family.pattern).is_dense:
        return problem
    return problem.with_sparsity(family.pattern, float(generator.uniform(*SPARSITY_RANGE)))


def _conv(threads: int, generator: np.random.Generator, sizes: Range) -> Problem:
    kernel = int(generator.choice(KERNEL_SIZES, p=KERNEL_ODDS))
    size = max(_log_uniform(IMAGE_SIZES, generator), kernel)
    stride = 2 if generator.random() < STRIDE_ODDS else 1
    c_in, c_out = _log_uniform(CHANNELS, generator), _log_uniform(CHANNELS, generator)
    depthwise = kernel > 1 and generator.random() < DEPTHWISE_ODDS
    return Problem(
        op="conv2d",
        n=_log_uniform((1, sizes.largest_batch), generator),
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


def _linear(threads: int, generator: np.random.Generator, sizes: Range) -> Problem:
    return Problem(
        op="linear",
        n=_log_uniform((1, sizes.most_rows), generator),
        c_in=_log_uniform(sizes.linear_widths, generator),
        c_out=_log_uniform(sizes.linear_widths, generator),
        threads=threads,
    )


def _log_uniform(limits: Sequence[int], generator: np.random.Generator) -> int:
    low, high = np.log(limits[0]), np.log(limits[1] + 1)
    return min(int(np.exp(generator.uniform(low, high))), limits[1])
