"""Which predictions are harder than others: the factor by which an interval differs from its kernel's usual one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from .limits import Floats

TREES = 60
LEAST_LEAF = 5
ENOUGH = 100
"""Held-out residuals below which all predictions count as equally hard."""
LARGEST, SMALLEST = 8.0, 0.3
"""Bounds, in typical errors: a misfit beyond the first tells no more, and no prediction is surer than the second."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """Residuals of one kernel on layers that its fit did not see.

    Attributes
    ----------
    residuals : array
        [samples], log(measured / predicted).
    features : array
        [samples, features]; see `features.difficulty_features`.
    """

    residuals: Floats
    features: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Difficulty:
    """Trees over all kernels, None where too little was measured."""

    trees: ExtraTreesRegressor | None

    def factor(self, features: Floats) -> Floats:
        """[problems]: expected error, in typical errors of the kernel."""
        if self.trees is None or not len(features):
            return np.ones(len(features))
        # Tree by tree: the forest's own call costs 0.1 s, and a plan asks hundreds of times.
        rows = np.ascontiguousarray(features, dtype=np.float32)
        mean = np.mean([tree.predict(rows, check_input=False) for tree in self.trees.estimators_], axis=0)
        return np.asarray(np.maximum(mean, SMALLEST))


EQUAL = Difficulty(trees=None)


def fit_difficulty(kernels: Sequence[HeldOut]) -> tuple[Difficulty, tuple[Floats, ...]]:
    """Learn from all kernels together where errors are large, in units of each kernel's median error.

    Returns
    -------
    Difficulty
        For new problems.
    tuple of array
        For each kernel, [samples]: the factors of its own residuals, each from the trees that did not see it.

    References
    ----------
    Papadopoulos et al., Regression conformal prediction with nearest neighbours, 2011 (normalised residuals); Johansson
    et al., Regression conformal prediction with random forests, 2014 (out-of-bag estimates).
    """
    if sum(len(kernel.residuals) for kernel in kernels) < ENOUGH:
        return EQUAL, tuple(np.ones(len(kernel.residuals)) for kernel in kernels)
    relative = np.concatenate([_relative(kernel.residuals) for kernel in kernels])
    features = np.concatenate([kernel.features for kernel in kernels])
    trees = ExtraTreesRegressor(TREES, min_samples_leaf=LEAST_LEAF, bootstrap=True, oob_score=True, random_state=0)
    trees.fit(features, relative)
    factors = np.maximum(trees.oob_prediction_, SMALLEST)
    ends = np.cumsum([len(kernel.residuals) for kernel in kernels])[:-1]
    return Difficulty(trees=trees), tuple(np.split(factors, ends))


def _relative(residuals: Floats) -> Floats:
    size = np.abs(residuals)
    typical = max(float(np.median(size)), 1e-3) if len(size) else 1.0
    return np.minimum(size / typical, LARGEST)
