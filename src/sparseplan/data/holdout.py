"""Hold a share of every class out, the same at every call."""

from __future__ import annotations

import numpy as np


def stratified_holdout(labels: np.ndarray, frac: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Divide indices into kept and held out, class by class.

    Parameters
    ----------
    labels : array
        [N] of int64.
    frac : float
        Share of each class to hold out, in (0, 1); at least one of a class that has two or more, none of a class of
        one.

    Returns
    -------
    kept, held : array
        Indices into `labels`, ascending; together all of them, none in both.
    """
    held = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(1, round(frac * len(members))), len(members) - 1)
        # A generator per class: images added to one class do not move the others.
        order = np.random.default_rng([seed, int(label)]).permutation(len(members))
        held.append(members[order[:count]])
    held_out = np.sort(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out
