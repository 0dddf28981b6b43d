"""What ``bench`` measured: the dense and the planned network, end to end and layer by layer."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..kernels.problem import Dtype, Problem
from ..kernels.spec import Layout
from ..perfmodel.schema import Interval
from ..profiles.schema import Fingerprint
from ..profiles.timing import TimeStats

Variant = Literal["dense", "planned"]
Host = Literal["eager", "channels_last", "compile"]
"""How torch runs the network around the layers; compile is torch.compile with frozen weights."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerCall(_Document):
    """What the operator of a swapped layer is told besides its tensors; travels inside exported programs."""

    problem: Problem
    kernel: str
    layout: Layout
    relu: bool
    weights: str
    """SHA-256 of weight and bias."""


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


class Measurements(_Document):
    """``measurements.json`` of a run folder."""

    schema_version: Literal[1] = 1
    created: datetime
    threads: int
    fingerprint: Fingerprint
    networks: tuple[NetworkTime, ...]
    layers: tuple[LayerTime, ...]
    best_dense: NetworkTime
    best_planned: NetworkTime
    speedup: Interval
    """Best dense over best planned; ratio, from alternating runs."""
    predicted_dense_time_s: Interval
    predicted_planned_time_s: Interval
    dense_accuracy_frac: float
    planned_accuracy_frac: float
    """On the test data, of the compiled model that was timed."""
    output_error: float
    """Largest difference between compiled and masked model, over the largest absolute output."""
    shipped: Variant
    verdict: str
