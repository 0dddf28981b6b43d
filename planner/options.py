"""Every way to run each layer, with its predicted time in the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from ..kernels.dense import runs_in_networks
from ..kernels.errors import UnsupportedError
from ..kernels.pattern import parse_pattern
from ..kernels.problem import DTYPE_BYTES, Dtype, Problem
from ..kernels.select import eligible
from ..kernels.spec import KernelSpec, Machine, NetworkLayout
from ..perfmodel.predict import PerformanceModel, Prediction
from ..perfmodel.schema import Interval
from .capture import CapturedLayer
from .levels import levels_of
from .schema import DtypePolicy

DTYPES_OF: Mapping[DtypePolicy, tuple[Dtype, ...]] = {
    "float32": ("float32",),
    "bfloat16": ("bfloat16",),
    "any": ("float32", "bfloat16"),
}


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
        With pattern, sparsity and dtype.
    time_s : Interval
        Of one call in the network: the kernel, conversions to and from the network's form, and the call itself.
    around_s : float
        The part of the median that is not the kernel's.
    bound : str
        The kernel's binding resource.
    """

    problem: Problem
    kernel: str
    time_s: Interval
    around_s: float
    bound: str
    extrapolated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """The ways to run one layer.

    Attributes
    ----------
    dense : TimedOption
        The fastest dense one.
    faster : tuple of TimedOption
        Sparse ones whose upper quantile lies below the dense median: these cannot make the layer slower.
    slower : tuple of TimedOption
        The other sparse ones.
    """

    layer: CapturedLayer
    dense: TimedOption
    faster: tuple[TimedOption, ...]
    slower: tuple[TimedOption, ...]


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


def time_options(
    layers: Sequence[CapturedLayer], patterns: Sequence[str], *, dtype_policy: DtypePolicy, machinery: Machinery
) -> tuple[tuple[LayerOptions, ...], NetworkForm]:
    """Predict every pattern x sparsity x kernel x dtype of every layer.

    Of several kernels for the same zeros and dtype the one with the least upper quantile stands for all.

    Raises
    ------
    UnsupportedError
        If no dense kernel can run a layer in an allowed dtype.
    """
    dtypes = DTYPES_OF[dtype_policy]
    kernels = _EligibleKernels(machinery)
    dense = {layer.name: tuple(_dense_requests(layer.problem, dtypes, kernels)) for layer in layers}
    sparse = {layer.name: tuple(_sparse_requests(layer.problem, dtypes, patterns, kernels)) for layer in layers}
    for layer in layers:
        if not dense[layer.name]:
            raise UnsupportedError(
                f"layer {layer.name!r}: no dense kernel runs it in {' or '.join(dtypes)} on this machine; "
                "allow another --dtype"
            )
    requests = {request for table in (dense, sparse) for found in table.values() for request in found}
    timer = _Timer(machinery, _predict_all(machinery.performance_model, requests), network_bytes=_touched_bytes(layers))
    form = _fastest_form(layers, dense, dtypes, timer)
    return tuple(_layer_options(layer, dense[layer.name], sparse[layer.name], form, timer) for layer in layers), form


Request = tuple[Problem, KernelSpec]


class _EligibleKernels:
    """`eligible`, asked once for each problem: networks repeat their layers."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery
        self._known: dict[Problem, tuple[KernelSpec, ...]] = {}

    def dense(self, problem: Problem) -> Iterator[KernelSpec]:
        """Dense kernels that the network would run if nothing were planned."""
        machine = self._machinery.machine
        return (kernel for kernel in self(problem) if "dense" in kernel.patterns and runs_in_networks(kernel, machine))

    def __call__(self, problem: Problem) -> tuple[KernelSpec, ...]:
        if problem not in self._known:
            self._known[problem] = eligible(problem, self._machinery.machine, self._machinery.registry)
        return self._known[problem]


def _dense_requests(problem: Problem, dtypes: Sequence[Dtype], kernels: _EligibleKernels) -> Iterator[Request]:
    for dtype in dtypes:
        wanted = replace(problem, dtype=dtype)
        yield from ((wanted, kernel) for kernel in kernels.dense(wanted))


def _sparse_requests(
    problem: Problem, dtypes: Sequence[Dtype], patterns: Sequence[str], kernels: _EligibleKernels
) -> Iterator[Request]:
    for dtype, text in product(dtypes, patterns):
        for sparsity in levels_of(parse_pattern(text), problem.weight_shape):
            wanted = replace(problem.with_sparsity(text, sparsity), dtype=dtype)
            yield from ((wanted, kernel) for kernel in kernels(wanted) if "dense" not in kernel.patterns)


def _predict_all(model: PerformanceModel, requests: set[Request]) -> dict[tuple[Problem, str], Prediction]:
    by_kernel: dict[str, list[Problem]] = defaultdict(list)
    for problem, kernel in requests:
        by_kernel[kernel.name].append(problem)
    return {
        (problem, name): prediction
        for name, problems in by_kernel.items()
        for problem, prediction in zip(problems, model.predict_many(problems, name), strict=True)
    }


class _Timer:
    """Puts predictions of kernels into the network."""

    def __init__(
        self, machinery: Machinery, predictions: Mapping[tuple[Problem, str], Prediction], *, network_bytes: float
    ) -> None:
        self._machinery = machinery
        self._predictions = predictions
        self._network_bytes = network_bytes
        self._conversions: dict[tuple[str, float], Interval] = {}

    def option(self, request: Request, form: NetworkForm) -> TimedOption:
        problem, kernel = request
        prediction = self._predictions[problem, kernel.name]
        around = [self._conversion(name, moved) for name, moved in _conversions(problem, kernel, form)]
        refetch_s = self._machinery.performance_model.refetch_s(problem, kernel.name, self._network_bytes)
        around.append(Interval(median=refetch_s, low=0.0, high=2.0 * refetch_s))
        if "dense" not in kernel.patterns:
            overhead_s = self._machinery.call_overhead_s
            around.append(Interval(median=overhead_s, low=overhead_s, high=overhead_s))
        total = add_times([prediction.interval, *around])
        return TimedOption(
            problem=problem,
            kernel=kernel.name,
            time_s=total,
            around_s=total.median - prediction.median_s,
            bound=prediction.bound,
            extrapolated=prediction.extrapolated,
        )

    def _conversion(self, name: str, bytes_moved: float) -> Interval:
        key = name, bytes_moved
        if key not in self._conversions:
            predicted = self._machinery.performance_model.predict_elementwise(name, bytes_moved)
            self._conversions[key] = predicted.interval
        return self._conversions[key]


def add_times(times: Sequence[Interval]) -> Interval:
    """Of one thing after another; their errors are taken as shared, so they add up."""
    return Interval(
        median=sum(time.median for time in times),
        low=sum(time.low for time in times),
        high=sum(time.high for time in times),
    )


def _conversions(problem: Problem, kernel: KernelSpec, form: NetworkForm) -> Iterator[tuple[str, float]]:
    """(elementwise operation, bytes read and written) that a kernel of another form needs around it."""
    if kernel.layout != form.layout and problem.op == "conv2d":
        yield f"{form.layout}_to_{kernel.layout}", 2.0 * problem.input_bytes
        yield f"{kernel.layout}_to_{form.layout}", 2.0 * problem.output_bytes
    if problem.dtype != form.dtype:
        both_frac = 1.0 + DTYPE_BYTES[form.dtype] / DTYPE_BYTES[problem.dtype]
        yield "cast", both_frac * problem.input_bytes
        yield "cast", both_frac * problem.output_bytes


def _touched_bytes(layers: Sequence[CapturedLayer]) -> float:
    """What a pass through the network touches before it comes to the same layer again: all weights, and the largest
    activations, whose memory the others use again."""
    weights = sum(layer.problem.weight_bytes for layer in layers)
    return weights + max((layer.problem.input_bytes + layer.problem.output_bytes for layer in layers), default=0.0)


def _fastest_form(
    layers: Sequence[CapturedLayer],
    dense: Mapping[str, Sequence[Request]],
    dtypes: Sequence[Dtype],
    timer: _Timer,
) -> NetworkForm:
    def network_s(form: NetworkForm) -> float:
        return sum(
            layer.calls * min(timer.option(request, form).time_s.median for request in dense[layer.name])
            for layer in layers
        )

    forms = [NetworkForm(layout=layout, dtype=dtype) for layout, dtype in product(get_args(NetworkLayout), dtypes)]
    return min(forms, key=network_s)


def _layer_options(
    layer: CapturedLayer, dense: Sequence[Request], sparse: Sequence[Request], form: NetworkForm, timer: _Timer
) -> LayerOptions:
    best_dense = min((timer.option(request, form) for request in dense), key=lambda option: option.time_s.median)
    quickest: dict[Problem, TimedOption] = {}
    for request in sparse:
        option = timer.option(request, form)
        rival = quickest.get(option.problem)
        if rival is None or option.time_s.high < rival.time_s.high:
            quickest[option.problem] = option
    faster = tuple(option for option in quickest.values() if option.time_s.high < best_dense.time_s.median)
    slower = tuple(option for option in quickest.values() if option.time_s.high >= best_dense.time_s.median)
    return LayerOptions(layer=layer, dense=best_dense, faster=faster, slower=slower)
