"""Efficiencies of one kernel from its samples."""

from __future__ import annotations

import numpy as np
from scipy import optimize

from .limits import Floats
from .roofline import LEAST, MOST, PRIOR, Roofline, combine, from_vector, gradient, roofline_times, to_vector
from .terms import Terms

MODEL_ERROR = 0.1
"""Typical misfit of a roofline, in natural logarithms of time: residuals beyond it count less and less (soft_l1)."""
PRIOR_WIDTH = to_vector(
    Roofline(
        arithmetic=3.0,
        streaming=3.0,
        memory=3.0,
        copying=3.0,
        dealing_scale=4.0,
        starts_scale=4.0,
        overhead_scale=4.0,
        thinning=0.2,
        sharpness=2.0,
    )
)
"""Factors (thinning: a difference) by which the parameters may leave the prior as easily as a time its prediction."""


def fit_roofline(terms: Terms, measured_s: Floats, noise_frac: Floats, *, start: Roofline = PRIOR) -> Roofline:
    """Fit the efficiencies to measured times by robust least squares on the logarithm of time.

    Parameters
    ----------
    measured_s : array
        [problems], medians.
    noise_frac : array
        [problems], relative uncertainty of the medians.
    start : Roofline
        Where the search starts; the prior that a sample-poor kernel stays near is always `PRIOR`.
    """
    least, most, prior = to_vector(LEAST), to_vector(MOST), to_vector(PRIOR)
    log_measured = np.log(measured_s)
    scale = np.hypot(MODEL_ERROR, noise_frac)

    def residuals(vector: Floats) -> Floats:
        roofline = from_vector(vector)
        misfit = np.log(combine(roofline_times(terms, roofline), roofline)) - log_measured
        return np.concatenate([misfit / scale, (vector - prior) / PRIOR_WIDTH])

    def jacobian(vector: Floats) -> Floats:
        by_parameter = gradient(terms, from_vector(vector)) / scale[:, np.newaxis]
        return np.concatenate([by_parameter, np.diag(1.0 / PRIOR_WIDTH)])

    inside = np.clip(to_vector(start), least + 1e-6, most - 1e-6)
    found = optimize.least_squares(residuals, inside, jacobian, bounds=(least, most), loss="soft_l1", max_nfev=100)
    return from_vector(found.x)
