"""The performance model of guided sparsity learning: one layer, two machine numbers.

Kept for comparison with the fitted model, and because its two bounds explain themselves.

References
----------
Park et al., Faster CNNs with Direct Sparse Convolutions and Guided Pruning, ICLR 2017 (arXiv 1608.01409), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..kernels.errors import InputError
from ..kernels.problem import Problem

INDEX_OVERHEAD = 2.0
"""b: a stored non-zero is a value of 4 bytes and an index of 4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GslMachine:
    """What the model knows of a machine.

    Attributes
    ----------
    flop_per_s : float
        F, that dense convolution achieves.
    bandwidth_byte_per_s : float
        B, of the main memory.
    sparse_overhead : float
        a: how much longer a multiply-add of the sparse kernel takes than one of the dense kernel.
    """

    flop_per_s: float
    bandwidth_byte_per_s: float
    sparse_overhead: float


def dense_time_s(problem: Problem, machine: GslMachine) -> float:
    """``C / F``."""
    return problem.flop_dense_equiv / machine.flop_per_s


def sparse_time_s(problem: Problem, machine: GslMachine, density: float) -> float:
    """``max(a x C / F, (S_A + b x S_W) / B)`` at the non-zero fraction x."""
    compute_s = machine.sparse_overhead * density * dense_time_s(problem, machine)
    memory_bytes = _activation_bytes(problem) + INDEX_OVERHEAD * density * problem.weight_bytes
    return max(compute_s, memory_bytes / machine.bandwidth_byte_per_s)


def speedup(problem: Problem, machine: GslMachine, density: float) -> float:
    """Dense over sparse time.

    Raises
    ------
    InputError
        If `density` is not in [0, 1].
    """
    if not 0.0 <= density <= 1.0:
        raise InputError(f"density must lie in [0, 1], got {density}")
    return dense_time_s(problem, machine) / sparse_time_s(problem, machine, density)


def least_useful_sparsity(machine: GslMachine) -> float:
    """Lower bound of the sparsity: ``1 - 1 / a``; below it the sparse kernel is slower."""
    return max(0.0, 1.0 - 1.0 / machine.sparse_overhead)


def least_useful_density(problem: Problem, machine: GslMachine) -> float | None:
    """``x_ub = (S_A / B) / (a C / F - b S_W / B)``: below this density memory binds and more sparsity gains nothing.

    None where memory binds at every density.
    """
    compute_s = machine.sparse_overhead * dense_time_s(problem, machine)
    weights_s = INDEX_OVERHEAD * problem.weight_bytes / machine.bandwidth_byte_per_s
    if compute_s <= weights_s:
        return None
    density = _activation_bytes(problem) / machine.bandwidth_byte_per_s / (compute_s - weights_s)
    return density if density < 1.0 else None


def _activation_bytes(problem: Problem) -> float:
    return problem.input_bytes + problem.output_bytes
