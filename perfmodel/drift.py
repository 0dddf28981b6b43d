"""How fast the machine was while each sample was taken: what all kernels of neighbouring problems have in common.

A shared machine slows down for seconds, as its neighbours come and go; no probe of arithmetic or bandwidth taken beside
the samples foretold by how much (correlations below 0.5). Problems measured one after the other are of different layers
and patterns, so that what a model misses of them differs from one to the next: what stays alike is the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..profiles.schema import KernelSample
from .limits import Floats

NEIGHBOURS = 5.0
"""Standard deviation, in problems (0.1 to 0.5 s each), of the window over which residuals are averaged. 3 to 10
lower the error on held-out layers alike."""
MOST = 0.4
"""Larger residuals tell of the model."""
ENOUGH_PROBLEMS = 50


def drift_of(samples: Sequence[KernelSample], residuals: Floats) -> Floats:
    """By how much the machine was slower than usual at each sample.

    Parameters
    ----------
    samples : sequence of KernelSample
        In the order in which they were taken.
    residuals : array
        [samples], log(measured / predicted); NaN where nothing was predicted.

    Returns
    -------
    array
        [samples], in logarithms of time, 0 in the median; all 0 where there are too few problems to tell.
    """
    turns = _turns(samples)
    count = int(turns[-1]) + 1 if len(turns) else 0
    if count < ENOUGH_PROBLEMS:
        return np.zeros(len(samples))
    common = np.zeros(count)
    known = np.zeros(count)
    ends = np.searchsorted(turns, np.arange(count + 1))
    for turn, (begin, end) in enumerate(pairwise(ends)):
        found = residuals[begin:end][np.isfinite(residuals[begin:end])]
        if len(found):
            common[turn], known[turn] = np.clip(np.median(found), -MOST, MOST), 1.0
    smooth = gaussian_filter1d(common, NEIGHBOURS) / np.maximum(gaussian_filter1d(known, NEIGHBOURS), 1e-6)
    drift: Floats = (smooth - np.median(smooth))[turns]
    return drift


def _turns(samples: Sequence[KernelSample]) -> np.ndarray:
    """[samples]: which turn of the profiler took them; a turn times all kernels of a problem and its dense rivals."""
    layers = [sample.problem.as_dense() for sample in samples]
    return np.cumsum([0, *(one != other for one, other in pairwise(layers))][: len(layers)])
