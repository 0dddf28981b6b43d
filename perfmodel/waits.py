"""What a kernel waits for in a network, and not where it is measured by itself, again and again on the same tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..kernels.problem import Problem
from .kernel_model import KernelModel
from .limits import STEP_FACTOR, Floats, Limits
from .roofline import combine, roofline_times
from .terms import RESOURCES, roofline_terms

CYCLIC_FACTOR = STEP_FACTOR
"""Moves the blurred step of the bandwidth from one cache level to the next to where the inner one is full."""
CORE_TO_CORE_BYTE_PER_S = 5e9
"""A core taking over what another one had last: some lines of 64 bytes on the way, 100 ns each (assumed; how much of
it networks see is fitted)."""


def refetch_s(problems: Sequence[Problem], model: KernelModel, limits: Limits, network_bytes: float) -> Floats:
    """Waiting for weights, [problems] in seconds.

    By itself a kernel finds its weights in a cache that holds them. In a network the other layers come in between and
    push them out, as far as all of them together exceed the caches.

    Parameters
    ----------
    network_bytes : float
        Bytes touched between two calls of the layer.
    """
    moved = np.array([model.spec.cost(problem).bytes_moved for problem in problems])
    activations = np.array([problem.input_bytes + problem.output_bytes for problem in problems])
    threads = limits.workers_of(np.array([float(problem.threads) for problem in problems]))
    weights = np.maximum(moved - activations, 0.0)
    # Going round through more than a cache holds finds nothing in it: the step lies at its size, not beyond.
    others = CYCLIC_FACTOR * np.maximum(network_bytes - moved, 0.0)
    alone = limits.bandwidth(moved / threads, threads)
    between = limits.bandwidth((moved + others) / threads, threads)
    return np.maximum(weights / between - weights / alone, 0.0) / min(model.roofline.memory, 1.0)


def handover_s(problems: Sequence[Problem], model: KernelModel, limits: Limits) -> Floats:
    """Waiting for activations, [problems] in seconds.

    By itself a kernel reads an input that nobody writes, so that each core keeps what it needs of it, and writes its
    output where it wrote it before. In a network the input was written by the layer before, and the memory of the
    output held what others read, mostly on another core. Taking lines over overlaps with arithmetic.
    """
    terms = roofline_terms(problems, model.spec, limits)
    times_s = roofline_times(terms, model.roofline)
    threads = np.array([float(problem.threads) for problem in problems])
    activations = np.array([problem.input_bytes + problem.output_bytes for problem in problems])
    others_bytes = activations * (1.0 - 1.0 / threads)
    late_s = times_s.copy()
    late_s[RESOURCES.index("memory")] += others_bytes / (threads * CORE_TO_CORE_BYTE_PER_S)
    return combine(late_s, model.roofline) - combine(times_s, model.roofline)
