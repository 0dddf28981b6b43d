"""What a way to run a layer is, with its predicted time in the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..kernels.problem import Dtype, Problem
from ..kernels.spec import KernelSpec, Machine, NetworkLayout
from ..perfmodel.predict import PerformanceModel
from ..perfmodel.schema import Interval
from .capture import CapturedLayer
from .schema import DtypePolicy
from .widths import State, Widths

DTYPES_OF: Mapping[DtypePolicy, tuple[Dtype, ...]] = {
    "float32": ("float32",),
    "bfloat16": ("bfloat16",),
    "any": ("float32", "bfloat16"),
    "int8": ("float32", "int8"),
}
"""What layers may be computed in."""


def network_dtypes(policy: DtypePolicy) -> tuple[Dtype, ...]:
    """What whole networks may run in: int8 layers take and give the numbers of the network around them."""
    return tuple(dtype for dtype in DTYPES_OF[policy] if dtype != "int8")


NARROWING = frozenset({"filter", "channel"})
REMOVAL = "depth"
NO_KERNEL = "removed"
"""Stands for the kernel of a layer that is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkForm:
    """How activations travel between the layers: that of the fastest dense network."""

    layout: NetworkLayout
    dtype: Dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOption:
    """One way to run one layer.

    Attributes
    ----------
    problem : Problem
        With its widths, pattern, sparsity and dtype; that of a removed layer is the full one.
    state : tuple of int
        Input and output channels; 0 where the layer is removed.
    time_s : Interval
        Of one call in the network: the kernel, conversions to and from the network's form, and the call itself.
    around_s : float
        The part of the median that is not the kernel's.
    bound : str
        The kernel's binding resource.
    other_dense : bool
        Whether it is dense, on a kernel that torch would not run by itself.
    """

    problem: Problem
    state: State
    kernel: str
    time_s: Interval
    around_s: float
    bound: str
    extrapolated: bool
    other_dense: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """The ways to run one layer.

    Attributes
    ----------
    dense : TimedOption
        The fastest dense one at full width.
    faster : tuple of TimedOption
        Sparse ones, and dense kernels that torch would not run by itself, whose upper quantile lies below the dense
        median at the same widths: these cannot make the layer slower.
    slower : tuple of TimedOption
        The other sparse ones at full width.
    narrower : tuple of TimedOption
        The fastest dense one at each of the other widths; removed where one of these is 0.
    """

    layer: CapturedLayer
    dense: TimedOption
    faster: tuple[TimedOption, ...]
    slower: tuple[TimedOption, ...]
    narrower: tuple[TimedOption, ...] = ()

    @property
    def choosable(self) -> bool:
        """Whether there is anything but the dense layer as it is."""
        return bool(self.faster or self.narrower)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machinery:
    """What runs the layers, and what is known of it.

    Attributes
    ----------
    call_overhead_s : float
        Of calling a kernel from torch, which the kernel's own time leaves out, seconds.
    """

    performance_model: PerformanceModel
    machine: Machine
    registry: tuple[KernelSpec, ...]
    call_overhead_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedNetwork:
    """The ways to run every layer, the form of the network between them, and the widths that they share."""

    layers: tuple[LayerOptions, ...]
    form: NetworkForm
    widths: Widths


def add_times(times: Sequence[Interval]) -> Interval:
    """Of one thing after another; their errors are taken as shared, so they add up."""
    return Interval(
        median=sum(time.median for time in times),
        low=sum(time.low for time in times),
        high=sum(time.high for time in times),
    )
