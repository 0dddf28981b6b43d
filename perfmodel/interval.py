"""Prediction intervals that hold on layers the fit never saw: cross-conformal, from held-out residuals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .limits import Floats

COVERAGE = 0.9
FEW_SAMPLES = 30
"""With fewer held-out residuals a tail quantile rests on the largest of them alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogInterval:
    """Interval of log(measured / predicted): `low` <= 0 <= `high`."""

    low: float
    high: float

    def widened(self, factor: Floats) -> tuple[Floats, Floats]:
        """(low, high) for predictions that need a `factor` times wider interval."""
        return self.low * factor, self.high * factor


UNKNOWN = LogInterval(low=-np.log(6.0), high=np.log(6.0))
"""Of a kernel that nothing measured is like: between a sixth and six times the analytic bound's guess (assumed)."""


def conformal_interval(residuals: Floats) -> LogInterval:
    """Interval that covers a new residual with probability `COVERAGE`, with the finite-sample correction.

    Parameters
    ----------
    residuals : array
        [samples], log(measured / predicted), each predicted by a model that did not see its layer.

    References
    ----------
    Vovk, Cross-conformal predictors, 2015; Barber et al., Predictive inference with the jackknife+, 2021.
    """
    count = len(residuals)
    if count == 0:
        return UNKNOWN
    tail = (1.0 - COVERAGE) / 2.0
    ordered = np.sort(residuals)
    rank = int(np.ceil((count + 1) * (1.0 - tail)))
    if rank > count:
        # Too few for this quantile: the largest residual, widened as if the tails were those of a normal law.
        margin = float(np.std(residuals)) + 0.02
        return LogInterval(low=min(float(ordered[0]) - margin, 0.0), high=max(float(ordered[-1]) + margin, 0.0))
    return LogInterval(low=min(float(ordered[count - rank]), 0.0), high=max(float(ordered[rank - 1]), 0.0))
