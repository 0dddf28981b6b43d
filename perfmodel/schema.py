"""What the performance model says of a problem."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..kernels.problem import Problem


class Interval(BaseModel):
    """A predicted time: median and 90 % interval, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: Annotated[float, Field(ge=0)]
    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]


class PredictionRecord(BaseModel):
    """One line of the output of ``sparseplan predict``; without a time where no kernel can run the problem."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem: Problem
    kernel: str | None
    time_s: Interval | None
    binding_resource: str | None
    extrapolated: bool | None
    flop_useful: float
    flop_dense_equiv: float
    reason: str | None
    """Why there is no prediction, or None."""
