"""What the roofline leaves over, learned from the shape of the layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from .limits import Floats

MOST_POINTS = 3000
"""A Gaussian process costs the cube of its points; more are thinned evenly."""
LENGTH_SCALE = 2.5
"""In standard deviations of the features. Fitted scales did not lower the held-out error, at 20 times the cost."""
UNEXPLAINED_FRAC = 0.5
"""Share of the residuals' spread that is taken for noise of the model, besides that of the measurement."""
OUTLIER = 3.0
"""Residuals beyond this many robust standard deviations are drawn in: a disturbed measurement must not shape others."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residual:
    """Gaussian process over standardised shape features, predicting log(measured / roofline)."""

    centre: Floats
    scale: Floats
    process: GaussianProcessRegressor

    def predict(self, features: Floats) -> Floats:
        """[problems]: correction of the logarithm of time; towards 0 away from the samples."""
        # Planners ask for one shape at many sparsities, and a process costs time with every point.
        shapes, of_shape = np.unique(features, axis=0, return_inverse=True)
        correction: Floats = self.process.predict((shapes - self.centre) / self.scale)[of_shape]
        return correction


def fit_residual(features: Floats, log_residual: Floats, noise_frac: Floats) -> Residual:
    """Fit the process.

    Parameters
    ----------
    features : array
        [problems, features].
    log_residual : array
        [problems], log(measured / roofline).
    noise_frac : array
        [problems], relative uncertainty of the measurements.
    """
    step = -(-len(features) // MOST_POINTS)
    features, log_residual, noise_frac = features[::step], log_residual[::step], noise_frac[::step]
    centre = features.mean(axis=0)
    deviation = features.std(axis=0)
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    middle = np.median(log_residual)
    # 1.4826 times the median absolute deviation estimates the standard deviation of a normal law.
    spread = max(1.4826 * float(np.median(np.abs(log_residual - middle))), 1e-3)
    process = GaussianProcessRegressor(
        kernel=ConstantKernel(spread**2) * Matern(length_scale=LENGTH_SCALE, nu=1.5),
        alpha=(UNEXPLAINED_FRAC * spread) ** 2 + noise_frac**2,
        optimizer=None,
    )
    drawn_in = np.clip(log_residual, middle - OUTLIER * spread, middle + OUTLIER * spread)
    process.fit((features - centre) / scale, drawn_in)
    return Residual(centre=centre, scale=scale, process=process)
