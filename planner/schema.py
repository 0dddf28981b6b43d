"""The plan: for each layer the pattern, sparsity, kernel and dtype, what that is expected to give, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..kernels.problem import Dtype, Problem
from ..perfmodel.schema import Interval

Status = Literal["optimal", "time_limit", "infeasible", "not_worth_it"]
DtypePolicy = Literal["float32", "bfloat16", "any"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Document):
    """What was asked for; exactly one is set."""

    speedup: float | None = None
    latency_s: float | None = None
    max_accuracy_drop_points: float | None = None


class Candidate(_Document):
    """One way to run one layer."""

    pattern: str
    sparsity: float
    kernel: str
    dtype: Dtype
    time_s: Interval
    loss_increase: float
    """Expected rise of the calibration loss, before any training."""
    extrapolated: bool

    @property
    def way(self) -> str:
        """What its limits of sparsity are filed under: ``filter on conv2d_compact_f32_nhwc__onednn``."""
        return f"{self.pattern} on {self.kernel}"


class LayerPlan(_Document):
    """The decision for one layer."""

    name: str
    """Dotted module name in the model."""
    problem: Problem
    """With the chosen pattern, sparsity and dtype."""
    chosen: Candidate
    dense: Candidate
    """The best dense way to run this layer."""
    considered: tuple[Candidate, ...]
    """Candidates near the choice that lost."""
    break_even_sparsity: dict[str, float | None]
    """By pattern and kernel (`Candidate.way`): the sparsity from which it beats the dense layer, None where it never
    does (GSL's lower bound)."""
    useful_sparsity: dict[str, float | None]
    """By pattern and kernel: the sparsity beyond which more of it gains nothing (GSL's upper bound)."""
    calls: int
    """How often one forward pass runs this layer."""
    binding_resource: str
    reason: str


class SkippedLayer(_Document):
    """A layer that cannot be planned, and why; it stays as it is."""

    name: str
    kind: str
    reason: str


class SolverReport(_Document):
    status: Status
    message: str
    objective: float | None
    bound: float | None
    gap_frac: float | None
    time_s: float


class Totals(_Document):
    """Times of one forward pass of the whole network."""

    dense_time_s: Interval
    planned_time_s: Interval
    rest_time_s: Interval
    """What lies between the layers; part of both, dense and planned alike."""
    loss_increase: float
    best_reachable_speedup: float
    """At the upper quantile of the time."""


class Plan(_Document):
    schema_version: Literal[2] = 2
    created: datetime
    model: str
    """SPEC of the model."""
    input_shape: tuple[int, ...]
    threads: int
    dtype_policy: DtypePolicy
    patterns: tuple[str, ...]
    """Patterns that were allowed."""
    target: Target
    layers: tuple[LayerPlan, ...]
    skipped: tuple[SkippedLayer, ...]
    totals: Totals
    solver: SolverReport
    sensitivity_source: Literal["calibration", "magnitude"]
    machine: str
    """CPU model of the profile."""
    profile_sha256: str
    profile_path: str
    """Where the profile lay when the plan was made; the trainer copies it into the run folder."""
