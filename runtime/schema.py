"""What ``bench`` measured: the dense and the planned network, end to end and layer by layer."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..kernels.problem import Dtype, Problem
from ..kernels.quantisation import Quantisation
from ..kernels.spec import Layout
from ..perfmodel.schema import Interval
from ..planner.schema import Target
from ..profiles.schema import Fingerprint
from ..profiles.timing import TimeStats

Variant = Literal["dense", "planned"]
Host = Literal["eager", "channels_last", "compile", "openvino", "graph", "compile_graph"]
"""How torch runs the network around the layers; compile is torch.compile with frozen weights, openvino runs dense
networks alone. On a GPU graph and compile_graph replay what channels_last and compile launch, as a CUDA graph."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerCall(_Document):
    """What the operator of a swapped layer is told besides its tensors; travels inside exported programs."""

    problem: Problem
    kernel: str
    layout: Layout
    relu: bool
    gives_blocked: bool
    weights: str
    """SHA-256 of weight and bias."""
    quantisation: Quantisation | None = None
    """Of an int8 layer."""


class NetworkTime(_Document):
    """One way to run the whole network."""

    variant: Variant
    host: Host
    dtype: Dtype
    time_s: TimeStats


class LayerTime(_Document):
    """One swapped layer with its real weights, against the dense kernel that the plan names for it.

    Both take and give activations as the dense kernel has them; conversions for the planned one are part of its time.
    """

    name: str
    kernel: str
    dense_kernel: str
    time_s: TimeStats
    dense_time_s: TimeStats
    predicted_time_s: Interval
    max_abs_error: float
    """Against the reference kernel."""
    reverted: bool
    """True where the layer lost in measurement and went back to its dense kernel."""


class Take(_Document):
    """What one process measured of a run."""

    networks: tuple[NetworkTime, ...]
    layers: tuple[LayerTime, ...]
    """Pooled over the processes that measured them; those that lost ran densely in the planned networks."""
    output_error: float
    clock_hz: tuple[float, ...]
    """Before and after; empty where the system does not tell."""


Outcome = Literal["met", "unchanged", "disturbed", "infeasible", "out of rounds"]


class LoopRound(_Document):
    """One round of measuring a plan."""

    solver_target: Target
    """What the solver was asked for, to meet the target that was asked for."""
    predicted_dense_s: float
    predicted_planned_s: float
    measured_dense_s: float
    measured_planned_s: float
    layers: tuple[LayerTime, ...]
    """Alone, against their dense kernels; those that lost ran densely in the network."""
    explained_s: float
    """Of the difference between measured and predicted planned network, what the layers account for."""
    unexplained_s: float
    """The rest of it: what lies between layers, and caches."""

    @property
    def speedup(self) -> float:
        return self.measured_dense_s / self.measured_planned_s


class LoopReport(_Document):
    """Written beside a plan that was measured and corrected."""

    schema_version: Literal[2] = 2
    created: datetime
    fingerprint: Fingerprint
    target: Target
    outcome: Outcome
    rounds: tuple[LoopRound, ...]
    kept: int
    """Number of the round whose plan was kept, from 0."""
    verdict: str


class StoredTake(_Document):
    """A take on disk, until all of them are there."""

    schema_version: Literal[1] = 1
    measured: str
    """SHA-256 of what was measured: plan, weights and machine. A take of anything else is not used."""
    take: Take


class StoredLayers(_Document):
    """What one process measured of the layers, on disk until all are there."""

    schema_version: Literal[1] = 1
    measured: str
    """As of `StoredTake`."""
    layers: tuple[LayerTime, ...]


class Measurements(_Document):
    """``measurements.json`` of a run folder."""

    schema_version: Literal[2] = 2
    created: datetime
    threads: int
    fingerprint: Fingerprint
    processes: int
    """Fresh processes that measured; intervals cover what moves between them."""
    clock_hz: tuple[float, ...]
    """Before and after each process's measurement; empty where the system does not tell."""
    networks: tuple[NetworkTime, ...]
    layers: tuple[LayerTime, ...]
    best_dense: NetworkTime
    best_planned: NetworkTime
    speedup: Interval
    """Best dense over best planned; ratio, from alternating runs, over all processes."""
    predicted_dense_time_s: Interval
    predicted_planned_time_s: Interval
    dense_accuracy_frac: float
    planned_accuracy_frac: float
    """On the test data, of the compiled model that was timed."""
    output_error: float
    """Largest difference between compiled and masked model, over the largest absolute output."""
    shipped: Variant
    verdict: str
