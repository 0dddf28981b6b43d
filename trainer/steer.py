"""The strength of a penalty as a controller's output: groups are to vanish by the time the plan wants them gone."""

from __future__ import annotations

import math
from dataclasses import dataclass

GAIN = math.log(2.0)
"""Of the logarithm of the strength, for an update at which all newly due zeros still had to be cut. Zeros are
due fastest early in the pruning phase: some ten updates must suffice to find a strength a thousand times the first."""
AHEAD_FRAC = 0.1
"""Share of the pruning phase by which the penalty runs ahead: groups that go later are left alone until then, so that a
penalty that was too strong for a while cannot empty them all."""
RANGE = 1e4
"""Largest factor between the first strength and what it may become."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emergence:
    """How the zeros of a layer came about at one update of its mask.

    Attributes
    ----------
    emerged_frac : float
        Share of the weights that the penalty alone had made zero, before any cut.
    before_frac, due_frac : float
        Share that the schedule had asked for at the last update, and asks for now.
    """

    emerged_frac: float
    before_frac: float
    due_frac: float

    @property
    def lag(self) -> float:
        """Share of the newly due zeros that the penalty still owes, in [-1, 1]; negative where it is ahead."""
        due = self.due_frac - self.before_frac
        return max(-1.0, min(1.0, (self.due_frac - self.emerged_frac) / due)) if due > 0.0 else 0.0


def steer(strength: float, seen: Emergence, *, first: float) -> float:
    """The strength for the next update: an integral controller on its logarithm.

    Too weak a penalty leaves groups to be cut while they still matter; too strong a one hurries past the schedule.

    Parameters
    ----------
    first : float
        Strength at the beginning of training; the result stays within `RANGE` of it.
    """
    return min(max(strength * math.exp(GAIN * seen.lag), first / RANGE), first * RANGE)
