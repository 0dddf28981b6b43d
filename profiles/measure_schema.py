"""What ``sparseplan measure`` says of a problem and a kernel."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..kernels.problem import Problem
from .timing import TimeStats


class MeasureRecord(BaseModel):
    """One kernel on one problem (a line of the output); without a time where it cannot run, or runs wrongly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem: Problem
    """As measured: with the threads used, and the true sparsity where the weights come from a file."""
    kernel: str | None
    """None where no kernel can run the problem."""
    time_s: TimeStats | None
    pack_time_s: Annotated[float, Field(ge=0)] | None
    flop_useful: float
    """Of the non-zero weights that were measured."""
    flop_dense_equiv: float
    max_abs_error: float | None
    """Against the float64 reference on the same inputs, which are rounded to the dtype of the problem first."""
    rel_error: float | None
    """`max_abs_error` over the largest absolute value of the reference."""
    reason: str | None
    """Why there is no time, or None."""
