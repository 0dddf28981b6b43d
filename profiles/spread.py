"""The problems that a profile measures: layers of real networks under every kind of sparsity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..kernels.problem import Dtype, Op, Problem
from .problem_limits import ProblemLimits
from .schema import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer without batch, dtype and sparsity; square images and kernels."""

    op: Op
    c_in: int
    c_out: int
    size: int = 1
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Problems that exercise the same kernels; `weight` is its share of the measurements."""

    op: Op
    dtype: Dtype
    pattern: str
    sparsities: tuple[float, ...]
    weight: float


def _conv(c_in: int, c_out: int, size: int, kernel: int, stride: int = 1, *, groups: int = 1) -> Layer:
    return Layer(
        op="conv2d",
        c_in=c_in,
        c_out=c_out,
        size=size,
        kernel=kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
    )


CONV_LAYERS = (
    # AlexNet conv2, conv3, conv5
    _conv(96, 256, 27, 5, groups=2),
    _conv(256, 384, 13, 3),
    _conv(384, 256, 13, 3, groups=2),
    # first layers: ImageNet, CIFAR, digits
    _conv(3, 64, 224, 7, 2),
    _conv(3, 16, 32, 3),
    _conv(3, 32, 32, 5),
    _conv(1, 64, 8, 3),
    # LeNet and ConvNet
    _conv(1, 20, 28, 5),
    _conv(20, 50, 12, 5),
    _conv(32, 32, 16, 5),
    _conv(32, 64, 8, 5),
    # CIFAR ResNets
    _conv(16, 16, 32, 3),
    _conv(16, 32, 32, 3, 2),
    _conv(32, 32, 16, 3),
    _conv(32, 64, 16, 3, 2),
    _conv(64, 64, 8, 3),
    # small networks on small images
    _conv(64, 64, 16, 3),
    _conv(64, 128, 8, 3),
    _conv(128, 128, 8, 3),
    _conv(128, 256, 8, 3),
    _conv(256, 256, 8, 3),
    _conv(256, 256, 4, 3),
    _conv(48, 80, 10, 3),
    _conv(96, 72, 20, 1),
    # ResNet-18 and ResNet-50
    _conv(64, 64, 56, 3),
    _conv(128, 128, 28, 3),
    _conv(256, 256, 14, 3),
    _conv(512, 512, 7, 3),
    _conv(128, 128, 56, 3, 2),
    _conv(64, 256, 56, 1),
    _conv(256, 64, 56, 1),
    _conv(512, 128, 28, 1),
    _conv(256, 1024, 14, 1),
    _conv(1024, 256, 14, 1),
    _conv(512, 2048, 7, 1),
    _conv(2048, 512, 7, 1),
    _conv(256, 512, 56, 1, 2),
    # MobileNet: depth-wise and narrow point-wise
    _conv(32, 32, 112, 3, groups=32),
    _conv(144, 144, 56, 3, 2, groups=144),
    _conv(384, 384, 14, 3, groups=384),
    _conv(960, 960, 7, 3, groups=960),
    _conv(64, 64, 16, 3, groups=64),
    _conv(16, 96, 112, 1),
    _conv(144, 24, 56, 1),
    _conv(64, 384, 14, 1),
    _conv(384, 64, 14, 1),
    _conv(160, 960, 7, 1),
)

LINEAR_LAYERS = tuple(
    Layer(op="linear", c_in=c_in, c_out=c_out)
    for c_in, c_out in (
        (64, 10),
        (84, 10),
        (120, 84),
        (256, 120),
        (400, 120),
        (256, 256),
        (512, 10),
        (800, 500),
        (500, 10),
        (512, 512),
        (384, 1536),
        (1536, 384),
        (768, 768),
        (768, 3072),
        (3072, 768),
        (1024, 1000),
        (2048, 1000),
        (1280, 1000),
        (1024, 4096),
        (4096, 1024),
        (4096, 1000),
        (4096, 4096),
        (9216, 4096),
    )
)

BATCHES = (1, 16, 32, 64, 128)
ROWS = (1, 8, 32, 128, 512)
"""Batches of a linear: one image or token, and the patches of an image or words of a text."""
UNSTRUCTURED_SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
BLOCK_SPARSITIES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
STRUCTURED_SPARSITIES = (0.25, 0.4, 0.5, 0.6, 0.75, 0.9)

FAMILIES = (
    Family(op="conv2d", dtype="float32", pattern="dense", sparsities=(0.0,), weight=3.0),
    Family(op="conv2d", dtype="float32", pattern="unstructured", sparsities=UNSTRUCTURED_SPARSITIES, weight=4.0),
    Family(op="conv2d", dtype="float32", pattern="filter", sparsities=STRUCTURED_SPARSITIES, weight=2.0),
    Family(op="conv2d", dtype="float32", pattern="channel", sparsities=STRUCTURED_SPARSITIES, weight=1.5),
    Family(op="conv2d", dtype="float32", pattern="shape", sparsities=STRUCTURED_SPARSITIES, weight=1.5),
    Family(op="conv2d", dtype="float32", pattern="filter+shape", sparsities=STRUCTURED_SPARSITIES, weight=1.5),
    Family(op="conv2d", dtype="float32", pattern="block:16x1", sparsities=BLOCK_SPARSITIES, weight=3.0),
    Family(op="conv2d", dtype="bfloat16", pattern="dense", sparsities=(0.0,), weight=1.5),
    Family(op="conv2d", dtype="bfloat16", pattern="block:16x2", sparsities=BLOCK_SPARSITIES, weight=1.0),
    Family(op="conv2d", dtype="bfloat16", pattern="filter", sparsities=STRUCTURED_SPARSITIES, weight=0.7),
    Family(op="conv2d", dtype="bfloat16", pattern="channel", sparsities=STRUCTURED_SPARSITIES, weight=0.5),
    Family(op="conv2d", dtype="bfloat16", pattern="filter+shape", sparsities=STRUCTURED_SPARSITIES, weight=0.5),
    Family(op="linear", dtype="float32", pattern="dense", sparsities=(0.0,), weight=1.0),
    Family(op="linear", dtype="float32", pattern="unstructured", sparsities=UNSTRUCTURED_SPARSITIES, weight=1.5),
    Family(op="linear", dtype="float32", pattern="block:16x1", sparsities=BLOCK_SPARSITIES, weight=1.0),
    Family(op="linear", dtype="float32", pattern="2:4", sparsities=(0.5,), weight=0.3),
    Family(op="linear", dtype="float32", pattern="1:4", sparsities=(0.75,), weight=0.3),
    Family(op="linear", dtype="float32", pattern="filter", sparsities=STRUCTURED_SPARSITIES, weight=0.7),
    Family(op="linear", dtype="float32", pattern="channel", sparsities=STRUCTURED_SPARSITIES, weight=0.7),
    Family(op="linear", dtype="bfloat16", pattern="dense", sparsities=(0.0,), weight=0.5),
    Family(op="linear", dtype="bfloat16", pattern="unstructured", sparsities=UNSTRUCTURED_SPARSITIES, weight=0.5),
    Family(op="linear", dtype="bfloat16", pattern="block:16x2", sparsities=BLOCK_SPARSITIES, weight=0.5),
    Family(op="linear", dtype="bfloat16", pattern="2:4", sparsities=(0.5,), weight=0.2),
    Family(op="linear", dtype="bfloat16", pattern="filter", sparsities=STRUCTURED_SPARSITIES, weight=0.4),
)

LIMITS: dict[Budget, ProblemLimits] = {
    "quick": ProblemLimits(flop=2e9, weights=2_500_000, values=1 << 23),
    "standard": ProblemLimits(flop=4e9, weights=17_000_000, values=1 << 24),
    "full": ProblemLimits(flop=5e10, weights=40_000_000, values=1 << 26),
}
"""Dense work of 20 to 40 ms, twice as much and 0.5 s on a present core; activations of 32, 64 and 256 MB in float32."""
ONE_THREAD_EVERY = 3
"""Every third problem runs on one thread, so that the model knows both."""
CHEAP_FIRST = 0.3
"""Exponent by which cheap choices of batch come earlier: 0 would ignore the cost, 1 would leave large ones out."""


def spread_problems(budget: Budget, threads: int) -> tuple[Problem, ...]:
    """Problems to measure, in an order of which any prefix is a good spread.

    Families take turns according to their weights; within one, every layer comes once before any comes again, each
    time under another batch and sparsity. The same arguments always give the same problems.

    Parameters
    ----------
    budget : {"quick", "standard", "full"}
        Decides how large problems may be.
    threads : int
        Most problems use this many, some one.
    """
    generator = np.random.default_rng(0)
    queue: list[tuple[float, Problem]] = []
    for family in FAMILIES:
        for index, problem in enumerate(_of_family(family, budget, threads, generator)):
            queue.append(((index + 0.5) / family.weight, problem))
    return tuple(problem for _, problem in sorted(queue, key=lambda entry: entry[0]))


def _of_family(family: Family, budget: Budget, threads: int, generator: np.random.Generator) -> Iterator[Problem]:
    layers = CONV_LAYERS if family.op == "conv2d" else LINEAR_LAYERS
    choices = [_choices(layer, family, budget, threads, generator) for layer in layers]
    for turn in range(max(map(len, choices))):
        for index in generator.permutation(len(choices)):
            if turn < len(choices[index]):
                yield choices[index][turn]


def _choices(
    layer: Layer, family: Family, budget: Budget, threads: int, generator: np.random.Generator
) -> list[Problem]:
    """The batches and sparsities of one layer that fit the budget, shuffled, cheap ones rather first."""
    problems = []
    for batch in BATCHES if family.op == "conv2d" else ROWS:
        for sparsity in family.sparsities:
            on_threads = 1 if generator.integers(ONE_THREAD_EVERY) == 0 else threads
            problem = _problem(layer, family, batch, sparsity, on_threads)
            if LIMITS[budget].admit(problem):
                problems.append(problem)
    keys = [generator.random() * problem.flop_dense_equiv**CHEAP_FIRST for problem in problems]
    return [problems[index] for index in np.argsort(keys)]


def _problem(layer: Layer, family: Family, batch: int, sparsity: float, threads: int) -> Problem:
    dense = dense_problem(layer, n=batch, dtype=family.dtype, threads=threads)
    return replace(dense, pattern=family.pattern, sparsity=sparsity)


def dense_problem(layer: Layer, *, n: int, dtype: Dtype, threads: int = 1) -> Problem:
    """A layer without zeros at a batch (rows, of a linear) of `n`."""
    return Problem(
        op=layer.op,
        n=n,
        c_in=layer.c_in,
        c_out=layer.c_out,
        h_in=layer.size,
        w_in=layer.size,
        kernel=(layer.kernel, layer.kernel),
        stride=(layer.stride, layer.stride),
        padding=(layer.padding, layer.padding),
        groups=layer.groups,
        dtype=dtype,
        threads=threads,
    )
