"""How large the problems of a profile may be: time spent on a giant is time not spent on a hundred others."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..kernels.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemLimits:
    """The largest problem that a budget measures.

    Attributes
    ----------
    flop : float
        Dense work, a thread.
    weights : int
        Making and packing a weight takes longer than running it once.
    values : int
        Of the input, and of the output: beyond all caches a layer only grows longer.
    """

    flop: float
    weights: int
    values: int

    def admit(self, problem: Problem) -> bool:
        """Whether a problem is small enough."""
        return (
            problem.flop_dense_equiv <= self.flop * problem.threads
            and problem.weight_count <= self.weights
            and max(math.prod(problem.input_shape), math.prod(problem.output_shape)) <= self.values
        )
