"""The machine profile: what was measured on this machine, with its identity."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..kernels.problem import Problem
from ..kernels.spec import Device
from .timing import TimeStats

Budget = Literal["quick", "standard", "full"]
Source = Literal["measured", "fitted", "datasheet", "assumed"]
CeilingUnit = Literal["flop/s", "byte/s", "s", "Hz"]
CLOCK = "clock_hz"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GpuIdentity(_Document):
    """What a time on a GPU depends on besides its name."""

    compute_capability: str
    multiprocessors: int
    l2_bytes: int
    memory_bytes: int
    driver_version: str | None
    cuda_version: str | None
    triton_version: str | None


class Fingerprint(_Document):
    """What a measured time depends on: a profile from another fingerprint is only a hint."""

    cpu_model: str
    isa: tuple[str, ...]
    cores_physical: int
    cores_usable: int
    l1d_bytes: int
    l2_bytes: int
    l3_bytes: int
    memory_bytes: int
    gpu_model: str | None
    operating_system: str
    python_version: str
    torch_version: str
    sparseplan_version: str
    memory_kept: bool = False
    """Whether processes that measure keep what tensors free (`kernels.keep_memory`); none did at first."""
    gpu: GpuIdentity | None = None
    """In profiles of a GPU; `isa` then names the architectures whose code it runs."""


class Ceiling(_Document):
    """A limit of the machine.

    `name` is one of

    - ``flop_per_s:`` and an execution unit (`kernels.spec.Unit`);
    - ``bandwidth_byte_per_s:l1|l2|l3|dram``, of loads, or with ``:store`` or ``:copy`` behind it;
    - ``latency_s:parallel_region|torch_op|timer``;
    - ``clock_hz``, whose interval is how far the clock strays from chain to chain of dependent additions;
    - of a GPU: ``bandwidth_byte_per_s:l2|dram`` of copies, ``latency_s:launch_eager|launch_graph``, and ``clock_hz`` of
      its multiprocessors as the driver told it between products.

    `unit` repeats the SI unit.
    """

    name: str
    value: Annotated[float, Field(gt=0)]
    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]
    unit: CeilingUnit
    threads: int
    source: Source


class KernelSample(_Document):
    """One kernel timed on one problem."""

    problem: Problem
    kernel: str
    time_s: TimeStats
    pack_time_s: Annotated[float, Field(ge=0)]
    noisy: bool
    """True where the interval of the median stayed above 2 % when the budget of the problem ended."""


class ElementwiseSample(_Document):
    """Time of what lies between layers: an element-wise torch operation that moves `bytes_moved`."""

    operation: str
    bytes_moved: float
    threads: int
    time_s: TimeStats


class NetworkLayer(_Document):
    """A layer of a measured network, under the kernel that ran it."""

    problem: Problem
    kernel: str
    calls: Annotated[int, Field(ge=1)]


class NetworkOperation(_Document):
    """What a measured network does between its layers."""

    operation: str
    bytes_moved: Annotated[float, Field(ge=0)]


class NetworkSample(_Document):
    """A whole dense network, timed as torch compiles it: what networks add to their parts is fitted to these."""

    model: str
    input_shape: tuple[int, ...]
    layers: tuple[NetworkLayer, ...]
    between: tuple[NetworkOperation, ...]
    touched_bytes: Annotated[float, Field(ge=0)]
    """By one pass: all weights and the largest activations."""
    time_s: TimeStats


class StabilitySample(_Document):
    """The arithmetic peak, measured again while the kernels were measured: a steady machine gives equal numbers."""

    at_s: Annotated[float, Field(ge=0)]
    flop_per_s: Annotated[float, Field(gt=0)]


class MachineProfile(_Document):
    schema_version: Literal[4] = 4
    created: datetime
    device: Device = "cpu"
    """Where the samples were taken. Those of a GPU are medians of replayed CUDA graphs with a warm cache."""
    budget: Budget
    threads: int
    fingerprint: Fingerprint
    ceilings: tuple[Ceiling, ...]
    samples: tuple[KernelSample, ...]
    elementwise: tuple[ElementwiseSample, ...]
    networks: tuple[NetworkSample, ...]
    stability: tuple[StabilitySample, ...]
    duration_s: float

    @property
    def machine_name(self) -> str:
        """What the samples were taken on: the model of the CPU or of the GPU."""
        on_gpu = self.device == "cuda" and self.fingerprint.gpu_model is not None
        return str(self.fingerprint.gpu_model) if on_gpu else self.fingerprint.cpu_model

    @property
    def drift_frac(self) -> float:
        """Range of the arithmetic peak during the run, its most extreme tenths left out, over its median."""
        rates = sorted(sample.flop_per_s for sample in self.stability)
        if not rates:
            return 0.0
        cut = len(rates) // 10
        return (rates[-1 - cut] - rates[cut]) / rates[len(rates) // 2]

    def ceiling(self, name: str) -> Ceiling:
        """The ceiling of that name at the profile's thread count.

        Raises
        ------
        KeyError
            If the profile has none.
        """
        for ceiling in self.ceilings:
            if ceiling.name == name and ceiling.threads == self.threads:
                return ceiling
        raise KeyError(name)
