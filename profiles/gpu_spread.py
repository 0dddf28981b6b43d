"""The problems that a profile of a GPU measures: layers of real networks at batches that a GPU is given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..kernels.pattern import DENSE
from ..kernels.problem import Dtype, Op, Problem
from .problem_limits import ProblemLimits
from .schema import Budget
from .spread import BLOCK_SPARSITIES, CONV_LAYERS, LINEAR_LAYERS, STRUCTURED_SPARSITIES, Family, Layer, dense_problem

BATCHES = (1, 8, 64, 256)
ROWS = (1, 64, 512, 4096, 12608)
"""Of linears: single rows, sequences, a square product, and 64 images of a vision transformer (197 tokens each)."""
TRANSFORMER_LAYERS = tuple(
    Layer(op="linear", c_in=c_in, c_out=c_out)
    for c_in, c_out in ((384, 1152), (768, 768), (768, 2304), (768, 3072), (3072, 768), (4096, 11008), (8192, 8192))
)
GPU_LIMITS: dict[Budget, ProblemLimits] = {
    "quick": ProblemLimits(flop=2e11, weights=1 << 28, values=1 << 28),
    "standard": ProblemLimits(flop=1e12, weights=1 << 28, values=1 << 28),
    "full": ProblemLimits(flop=4e12, weights=1 << 28, values=1 << 28),
}
"""Dense work of some milliseconds on a server's card, in half precision."""
PATTERNS = (
    ("dense", (0.0,), 1.5),
    ("block:64x64", BLOCK_SPARSITIES, 1.0),
    ("block:32x32", BLOCK_SPARSITIES, 0.7),
    ("block:16x16", BLOCK_SPARSITIES, 0.4),
    ("2:4", (0.5,), 0.7),
    ("sas:1:2", (0.5,), 0.4),
    ("shape", STRUCTURED_SPARSITIES, 0.4),
    ("64:2:8", (0.75,), 0.3),
    ("64:2:16", (0.875,), 0.3),
    ("channel", STRUCTURED_SPARSITIES, 0.3),
    ("unstructured", (0.9, 0.95, 0.98), 0.3),
)
"""With the sparsities measured and the share of the measurements."""
DTYPE_SHARES: dict[Dtype, float] = {"bfloat16": 1.0, "float16": 0.4, "float32": 0.5}
_OPS: tuple[Op, ...] = ("conv2d", "linear")
GPU_FAMILIES = tuple(
    Family(op=op, dtype=dtype, pattern=pattern, sparsities=sparsities, weight=weight * share)
    for op in _OPS
    for dtype, share in DTYPE_SHARES.items()
    for pattern, sparsities, weight in PATTERNS
    if (pattern != "2:4" or dtype != "float32") and (pattern != "unstructured" or (op, dtype) == ("conv2d", "float32"))
)
"""Of 2:4 no library has a float32 product, and direct sparse convolution is for float32 alone."""


def gpu_problems(budget: Budget) -> tuple[Problem, ...]:
    """Problems to measure, in an order of which any prefix is a good spread; the same budget gives the same ones."""
    generator = np.random.default_rng(0)
    queue: list[tuple[float, Problem]] = []
    for family in GPU_FAMILIES:
        found = [problem for problem in _of_family(family) if GPU_LIMITS[budget].admit(problem)]
        order = generator.permutation(len(found))
        queue += [((rank + 0.5) / family.weight, found[index]) for rank, index in enumerate(order)]
    return tuple(problem for _, problem in sorted(queue, key=lambda entry: entry[0]))


def _of_family(family: Family) -> Iterator[Problem]:
    layers = CONV_LAYERS if family.op == "conv2d" else dict.fromkeys((*LINEAR_LAYERS, *TRANSFORMER_LAYERS))
    for layer in layers:
        for n in BATCHES if family.op == "conv2d" else ROWS:
            plain = dense_problem(layer, n=n, dtype=family.dtype)
            if family.pattern == DENSE.text:
                yield plain
                continue
            yield from (plain.with_sparsity(family.pattern, sparsity) for sparsity in family.sparsities)
