"""Problems on which the native kernels of the registry are watched: by guard pages, and by a race checker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from test_registry import CONVOLUTIONS, LINEARS, patterns_of
from torch import Tensor

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.select import why_ineligible
from sparseplan.kernels.spec import KernelSpec

MACHINE = detect_machine()
MORE_CONVOLUTIONS = {
    "huge_dilation": Problem(
        op="conv2d", n=1, c_in=3, c_out=5, h_in=70, w_in=90, kernel=(3, 3), dilation=(31, 40), padding=(1, 2)
    ),
    "dilated_into_padding": Problem(
        op="conv2d", n=2, c_in=4, c_out=6, h_in=5, w_in=4, kernel=(3, 3), dilation=(9, 11), padding=(9, 11)
    ),
    "to_one_pixel": Problem(op="conv2d", n=3, c_in=21, c_out=33, h_in=7, w_in=5, kernel=(7, 5)),
    "one_padded_pixel": Problem(op="conv2d", n=2, c_in=17, c_out=35, h_in=1, w_in=1, kernel=(3, 3), padding=(1, 1)),
    "stride_beyond_kernel": Problem(op="conv2d", n=2, c_in=5, c_out=7, h_in=17, w_in=19, kernel=(2, 1), stride=(5, 4)),
    "vectors_and_one": Problem(op="conv2d", n=1, c_in=65, c_out=129, h_in=1, w_in=17, kernel=(1, 3), padding=(0, 1)),
}
MORE_LINEARS = {
    "vectors_and_one": Problem(op="linear", n=5, c_in=129, c_out=65),
    "less_than_a_vector": Problem(op="linear", n=1, c_in=3, c_out=2),
    "long": Problem(op="linear", n=2, c_in=2051, c_out=97),
}


def native_kernels() -> list[KernelSpec]:
    """The kernels of all instruction sets that this machine has."""
    return [kernel for kernel in REGISTRY if kernel.isa in MACHINE.isa]


def problems_of(kernel: KernelSpec, thread_counts: tuple[int, ...]) -> Iterator[tuple[str, Problem]]:
    """The problems that a kernel runs, with a name for each; every pattern on the shapes with tails."""
    shapes = CONVOLUTIONS | MORE_CONVOLUTIONS if kernel.op == "conv2d" else LINEARS | MORE_LINEARS
    patterns = patterns_of(kernel)
    for (name, shape), pattern, threads in itertools.product(shapes.items(), patterns, thread_counts):
        if pattern != patterns[0] and name not in ("odd", "tail"):
            continue
        sized = replace(shape.with_sparsity(pattern, 0.0 if pattern == "dense" else 0.6), dtype=kernel.dtype)
        for n in dict.fromkeys((sized.n, 19)):
            problem = replace(sized, n=n, threads=threads)
            if why_ineligible(kernel, problem, MACHINE) is None:
                yield f"{name}, n={n}, {pattern}, {threads} threads", problem


def weights_of(problem: Problem, generator: torch.Generator) -> dict[str, Tensor]:
    """[K, C, R, S] by name: the zeros of the pattern, and the extremes."""
    dense = torch.randn(problem.weight_shape, generator=generator)
    last = torch.zeros_like(dense)
    last[-1, -1, -1, -1] = 1.5
    pattern = parse_pattern(problem.pattern)
    return {
        "pattern": dense if pattern.slots > 1 else dense * magnitude_mask(dense, pattern, problem.sparsity),
        "all_dense": dense,
        "all_zero": torch.zeros_like(dense),
        "last": last,
    }
