"""The plan: for each layer the pattern, sparsity, kernel and dtype, what that is expected to give, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..kernels.problem import Dtype, Problem
from ..perfmodel.schema import Interval

Status = Literal["optimal", "time_limit", "infeasible", "not_worth_it"]
DtypePolicy = Literal["float32", "bfloat16", "any", "int8"]
"""any is float32 or bfloat16, int8 is float32 or int8, by layer."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(_Document):
    """What was asked for: at least one is set, and the plan meets all that are."""

    speedup: float | None = None
    latency_s: float | None = None
    """Of one batch."""
    throughput_per_s: float | None = None
    """Images a second, in batches of the plan's size."""
    max_accuracy_drop_points: float | None = None
    """Before any training."""
    model_bytes: float | None = None
    """Of the model as a file: weights that are not zero, and one bit a group that says which."""

    @property
    def given(self) -> dict[str, float]:
        """What is set, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}

    @property
    def given_time_or_size(self) -> bool:
        """Whether the solver alone can meet some of it, without measuring accuracy."""
        return bool(self.given.keys() - {"max_accuracy_drop_points"})


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
    other_dense: bool = False
    """Dense, on a kernel that torch would not run here by itself: the runtime puts it in the layer's place. Nothing is
    removed and nothing lost."""

    @property
    def way(self) -> str:
        """What its limits of sparsity are filed under: ``filter on conv2d_compact_f32_nhwc__onednn``."""
        return f"{self.pattern} on {self.kernel}"


class ChannelSlice(_Document):
    """Where the channels of a width group lie in one module.

    Unit u has the channels ``offset + u * run .. offset + (u + 1) * run - 1`` for each of the offsets.
    """

    module: str
    axis: Literal["out", "in"]
    """Output channels (rows of the weight, the bias, everything of a normalisation) or input channels (columns)."""
    offsets: tuple[int, ...]
    run: int

    @property
    def channels_per_unit(self) -> int:
        return len(self.offsets) * self.run

    def channels(self, units: Sequence[int]) -> list[int]:
        """The channels of some units, ascending."""
        return sorted(
            offset + unit * self.run + step for offset in self.offsets for unit in units for step in range(self.run)
        )


class HeadCount(_Document):
    """An attribute of a module that counts attention heads; its forward reads it."""

    module: str
    attribute: str
    per_unit: int


class WidthGroup(_Document):
    """Channels that several layers must share: those that produce them, those that read them, and norms between."""

    name: str
    """Of the layer that produces them (the first, where several do)."""
    units: int
    """What can be removed one by one: a channel, or several that only go together (a head, one of each conv group)."""
    slices: tuple[ChannelSlice, ...]
    head_counts: tuple[HeadCount, ...] = ()
    branch: tuple[str, ...] = ()
    """Modules with parameters of the residual branch that goes when no unit is kept; none where that cannot be."""


class WidthLevel(_Document):
    """One width that a group could have."""

    kept: int
    loss_increase: float


class WidthPlan(_Document):
    """The decision for one width group."""

    group: WidthGroup
    kept: int
    loss_increase: float
    """Of the narrowing alone; layers count what is skipped in what is left."""
    considered: tuple[WidthLevel, ...]
    reason: str


class FixedWidth(_Document):
    """A layer whose output width stays, and why."""

    name: str
    reason: str


class LayerPlan(_Document):
    """The decision for one layer."""

    name: str
    """Dotted module name in the model."""
    full_problem: Problem
    """Dense, as in the model that is planned."""
    problem: Problem
    """What runs: with the kept widths, and the chosen pattern, sparsity and dtype."""
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
    dense_bytes: float | None = None
    """Of the model as a file, all in float32; None in plans from before it was recorded."""
    planned_bytes: float | None = None


class FrontLayer(_Document):
    """What a layer gets at one point of the front."""

    name: str
    pattern: str
    sparsity: float
    kernel: str


class FrontWidth(_Document):
    """The units that a width group keeps at one point of the front."""

    name: str
    kept: int


class FrontPoint(_Document):
    """The plan of least loss at one speedup."""

    speedup: float
    """That was asked for, at the upper quantile of the time."""
    time_s: Interval
    loss_increase: float
    layers: tuple[FrontLayer, ...]
    """Those that are not left dense."""
    widths: tuple[FrontWidth, ...] = ()
    """Those that are narrowed."""


class UnusablePattern(_Document):
    """A pattern that was allowed and that no kernel of the machine can use in any layer."""

    pattern: str
    reason: str


class Plan(_Document):
    schema_version: Literal[3] = 3
    created: datetime
    model: str
    """SPEC of the model."""
    input_shape: tuple[int, ...]
    threads: int
    dtype_policy: DtypePolicy
    patterns: tuple[str, ...]
    """Patterns that were allowed."""
    unusable_patterns: tuple[UnusablePattern, ...] = ()
    """Those of them that no kernel here can use."""
    target: Target
    layers: tuple[LayerPlan, ...]
    widths: tuple[WidthPlan, ...] = ()
    fixed_widths: tuple[FixedWidth, ...] = ()
    skipped: tuple[SkippedLayer, ...]
    totals: Totals
    solver: SolverReport
    front: tuple[FrontPoint, ...] = ()
    """Least loss against time, the slowest first; empty unless it was asked for."""
    sensitivity_source: Literal["calibration", "magnitude"]
    pruned_layers_path: str | None = None
    """The database of pruned layers whose losses were used: refitted weights, not weights cut by magnitude."""
    machine: str
    """CPU model of the profile."""
    profile_sha256: str
    profile_path: str
    """Where the profile lay when the plan was made; the trainer copies it into the run folder."""


class PrunedOrigin(_Document):
    """What a database of pruned layers was made from (``database.json``); other things need another database."""

    schema_version: Literal[1] = 1
    weights_sha256: str
    """Of all parameters and buffers of the dense model."""
    calibration_sha256: str
    """Of the calibration images, and of their labels where there are any."""
    method: str
    """The algorithm's version and constants."""


class ChoiceLoss(_Document):
    """Expected rise of the loss when a layer gets these zeros."""

    layer: str
    pattern: str
    sparsity: float
    loss: float
    measured: float | None
    """Rise that was measured with this layer alone pruned."""


class WidthLoss(_Document):
    """Expected rise of the loss when a width group keeps so many units."""

    group: str
    kept: int
    loss: float


class StoredSensitivity(_Document):
    """What was measured and searched with a database of pruned layers (``sensitivity.json``)."""

    schema_version: Literal[1] = 1
    choices: tuple[ChoiceLoss, ...]
    rounding: dict[str, float]
    scale: dict[str, float]
    widths: tuple[WidthLoss, ...] = ()
