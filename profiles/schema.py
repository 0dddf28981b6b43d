"""The machine profile: what was measured on this machine, with its identity."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..kernels.problem import Problem
from .timing import TimeStats

Budget = Literal["quick", "standard", "full"]
Source = Literal["measured", "fitted", "datasheet", "assumed"]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Ceiling(_Document):
    """A limit of the machine.

    `name` is ``flop_per_s:fma_f32|fma_f16|dot_bf16``, ``bandwidth_byte_per_s:l1|l2|l3|dram`` or
    ``latency_s:parallel_region|torch_op|page_fault``; `unit` repeats the SI unit.
    """

    name: str
    value: Annotated[float, Field(gt=0)]
    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]
    unit: Literal["flop/s", "byte/s", "s"]
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


class MachineProfile(_Document):
    schema_version: Literal[1] = 1
    created: datetime
    budget: Budget
    threads: int
    fingerprint: Fingerprint
    ceilings: tuple[Ceiling, ...]
    samples: tuple[KernelSample, ...]
    elementwise: tuple[ElementwiseSample, ...]
    duration_s: float

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
