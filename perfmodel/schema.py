"""What the performance model says of a problem."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..kernels.problem import Problem
from ..profiles.schema import Budget, Ceiling, Fingerprint
from ..profiles.timing import TimeStats


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


class Quality(BaseModel):
    """How well predictions hold; errors are of the predicted median, relative to the measured one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictions: int
    median_error_frac: float | None
    mean_error_frac: float | None
    bias_frac: float | None = None
    """Median of how much longer than predicted it took: one sign in all families tells that the machine's speed moved
    between profile and validation. None in documents from before it was recorded."""
    within_5_frac: float | None
    within_10_frac: float | None
    spearman: float | None
    """Rank correlation; None for fewer than three predictions, or equal ones."""
    coverage_frac: float | None
    """Share of measurements inside the 90 % interval; None for predictors without intervals."""
    width_frac: float | None
    """Median of the interval's width over the predicted median."""
    decisions: int
    """Choices between sparse and dense that lie outside a band of 5 % around equality."""
    decisions_right_frac: float | None
    regret_frac: float | None
    """Mean of how much longer the kernel that was predicted fastest takes than the fastest one."""


class FamilyQuality(BaseModel):
    """One predictor on one family of problems, or on all of them ("all")."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictor: str
    family: str
    quality: Quality


class CheckedPrediction(BaseModel):
    """One kernel on one fresh problem: predicted and measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem: Problem
    kernel: str
    predicted_s: Interval
    time_s: TimeStats
    extrapolated: bool


class CheckedNetwork(BaseModel):
    """A whole dense network: the sum over its layers and what lies between them, against its measured time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    input_shape: tuple[int, ...]
    predicted_s: Interval
    time_s: TimeStats
    host: str

    @property
    def error_frac(self) -> float:
        return self.predicted_s.median / self.time_s.median - 1.0


class Validation(BaseModel):
    """A performance model judged on work that its profile never saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    created: datetime
    machine: str
    profile_sha256: str
    profile_budget: str
    held_out: tuple[str, ...]
    """Networks whose layers were taken out of the profile before the fit."""
    qualities: tuple[FamilyQuality, ...]
    predictions: tuple[CheckedPrediction, ...]
    networks: tuple[CheckedNetwork, ...]
    duration_s: float


class LayerBreakEven(BaseModel):
    """The least sparsity at which a family beats the best dense kernel on a typical layer; None where it never does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: str
    sparsity: float | None


class FamilySummary(BaseModel):
    """Kernels that differ in layout and instruction set alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    kernels: tuple[str, ...]
    samples: int
    noisy: int
    held_out_error_frac: float | None
    """Median error on layers left out of the fit, in logarithms of time: the mean over kernels by their samples."""
    pattern: str
    """The one that was measured most; that of `break_even`."""
    break_even: tuple[LayerBreakEven, ...]


class ElementwiseSummary(BaseModel):
    """An operation between layers: what the smallest one costs, and how fast the largest one moves its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: str
    samples: int
    smallest_bytes: float
    smallest_s: float
    largest_bytes: float
    largest_byte_per_s: float


class NetworkSummary(BaseModel):
    """A whole network that was measured, beside what the model fitted to it and the others says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    input_shape: tuple[int, ...]
    measured_s: float
    fitted_s: float


class NetworkTermsSummary(BaseModel):
    """What a network adds to its parts; see `network.NetworkTerms`. Assumed where no network was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["fitted", "assumed"]
    call_s: float
    layer_s: float
    kind_s: float
    refetch_frac: float
    handover_frac: float
    between_scale: float
    networks: tuple[NetworkSummary, ...]


class ProfileSummary(BaseModel):
    """What ``sparseplan profile --show`` says of a profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    created: datetime
    budget: Budget
    threads: int
    fingerprint: Fingerprint
    duration_s: float
    ceilings: tuple[Ceiling, ...]
    drift_frac: float
    clock_spread_frac: float | None
    """Widest range of the clock, the most extreme tenths left out, over its median; None in older profiles."""
    noisy_frac: float
    families: tuple[FamilySummary, ...]
    elementwise: tuple[ElementwiseSummary, ...]
    network: NetworkTermsSummary
