"""What the residual of the roofline may depend on: the shape of a layer, never its sparsity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..kernels.problem import Problem
from .limits import Floats

LEAST_SHARE = 1e-3
"""Smaller parts of a time are all alike."""
LANES = 16
"""float32 values in the widest vector register of present CPUs: tails beside it make the staircases over channels."""


def shape_features(problems: Sequence[Problem]) -> Floats:
    """[problems, features]: logarithms of sizes, and the shares lost in vector tails.

    Independent of the sparsity, so that a residual fitted on them leaves the roofline's order over sparsity as it is.
    """
    return np.array([_of_one(problem) for problem in problems], dtype=float)


def _of_one(problem: Problem) -> list[float]:
    pixels = problem.h_out * problem.w_out
    sizes = (
        problem.n,
        problem.c_in // problem.groups,
        problem.c_out // problem.groups,
        pixels,
        problem.kernel[0] * problem.kernel[1],
        problem.stride[0] * problem.stride[1],
        problem.groups,
        problem.threads,
        problem.flop_dense_equiv,
        problem.input_bytes + problem.output_bytes,
    )
    tails = (problem.n, problem.c_in, problem.c_out, problem.w_out, problem.n * pixels)
    return [*np.log(sizes), *(np.log(-(-size // LANES) * LANES / size) for size in tails)]


def difficulty_features(shape: Floats, times_s: Floats, total_s: Floats) -> Floats:
    """[problems, features]: the shape, which resources the time goes to, and how long it is.

    Parameters
    ----------
    shape : array
        [problems, features] of `shape_features`.
    times_s : array
        [resources, problems] of `roofline.roofline_times`.
    total_s : array
        [problems].
    """
    shares = np.log(np.maximum(times_s / total_s, LEAST_SHARE))
    return np.column_stack([shape, shares.T, np.log(total_s)])


def layer_key(problem: Problem) -> tuple[object, ...]:
    """What makes two problems the same layer: held-out residuals must come from other layers, not other sparsities."""
    return (
        problem.op,
        problem.c_in,
        problem.c_out,
        problem.h_in,
        problem.w_in,
        problem.kernel,
        problem.stride,
        problem.groups,
    )
