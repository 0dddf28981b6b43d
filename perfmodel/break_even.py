"""From which sparsity a kernel beats the dense layer, and beyond which more of it gains nothing."""

from __future__ import annotations

import numpy as np

from ..kernels.pattern import parse_pattern
from ..kernels.problem import Problem
from .predict import PerformanceModel

DENSEST, SPARSEST = 1.0, 0.005
GRID = 1.0 - np.geomspace(DENSEST, SPARSEST, 97)[1:]
"""Sparsities tried, even in the logarithm of the density: 5.4 % fewer weights a step, up to 99.5 %."""
FLAT = 0.1
"""Slope d log(time) / d log(density) below which sparsity gains nothing: 10 % fewer weights give less than 1 %."""


def break_even_sparsity(
    model: PerformanceModel, problem: Problem, pattern: str, kernel: str, dense_time_s: float
) -> float | None:
    """Least sparsity from which on `kernel` is predicted to beat the dense layer (the lower bound of GSL).

    Parameters
    ----------
    problem : Problem
        The layer; its own pattern and sparsity do not matter.
    dense_time_s : float
        Of the best dense way to run the layer.

    Returns
    -------
    float or None
        None where it loses at every sparsity. A pattern that dictates its sparsity gives that, or None.
    """
    sparsities, times_s = _curve(model, problem, pattern, kernel)
    losing = np.flatnonzero(times_s >= dense_time_s)
    first = 0 if len(losing) == 0 else int(losing[-1]) + 1
    return float(sparsities[first]) if first < len(sparsities) else None


def useful_sparsity(model: PerformanceModel, problem: Problem, pattern: str, kernel: str) -> float | None:
    """Sparsity beyond which more of it gains nothing (the upper bound of GSL).

    From there on, a tenth fewer weights gives less than one per cent of time.

    Returns
    -------
    float or None
        None where more sparsity pays up to 99.5 %, and for patterns that dictate their sparsity.
    """
    sparsities, times_s = _curve(model, problem, pattern, kernel)
    if len(sparsities) == 1:
        return None
    # Over several steps, as whole filters or tiles make the curve a staircase.
    log_time, log_density = np.log(times_s), np.log(1.0 - sparsities)
    steps = 8
    slope = (log_time[:-steps] - log_time[steps:]) / (log_density[:-steps] - log_density[steps:])
    paying = np.flatnonzero(slope > FLAT)
    first = 0 if len(paying) == 0 else int(paying[-1]) + 1
    return float(sparsities[first]) if first < len(slope) else None


def _curve(model: PerformanceModel, problem: Problem, pattern: str, kernel: str) -> tuple[np.ndarray, np.ndarray]:
    """(sparsities, median seconds)."""
    fixed = parse_pattern(pattern).fixed_sparsity
    sparsities = GRID if fixed is None else np.array([fixed])
    problems = [problem.with_sparsity(pattern, float(sparsity)) for sparsity in sparsities]
    predictions = model.predict_many(problems, kernel)
    return sparsities, np.array([prediction.median_s for prediction in predictions])
