"""Every way to run each layer, at every width that it can have, with its predicted time in the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from ..kernels.dense import runs_in_networks
from ..kernels.errors import UnsupportedError
from ..kernels.pattern import Pattern, parse_pattern
from ..kernels.problem import DTYPE_BYTES, Dtype, Problem
from ..kernels.select import eligible
from ..kernels.spec import KernelSpec, Machine, NetworkLayout
from ..perfmodel.predict import PerformanceModel, Prediction
from ..perfmodel.schema import Interval
from .capture import CapturedLayer
from .levels import levels_of
from .schema import DtypePolicy, WidthGroup
from .width_levels import asked_counts, levels_by_time
from .widths import GroupLevels, State, Widths, layer_axes, narrowed

DTYPES_OF: Mapping[DtypePolicy, tuple[Dtype, ...]] = {
    "float32": ("float32",),
    "bfloat16": ("bfloat16",),
    "any": ("float32", "bfloat16"),
}


MOST_LEVELS = 16
"""Of a group whose layers may only be dense, at each pair of widths."""
MOST_LEVELS_AND_PATTERNS = 4
"""Of a group whose layers may skip as well: every pair of widths has all patterns and sparsities."""
MOST_LEVELS_JOINED = 4
"""Of a group that is joined with others in front of a layer: there are as many widths as sums of their levels."""
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
    """

    problem: Problem
    state: State
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
        The fastest dense one at full width.
    faster : tuple of TimedOption
        Sparse ones whose upper quantile lies below the dense median at the same widths: these cannot make the layer
        slower.
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


def time_options(
    layers: Sequence[CapturedLayer],
    patterns: Sequence[str],
    *,
    dtype_policy: DtypePolicy,
    machinery: Machinery,
    groups: Sequence[WidthGroup] = (),
) -> TimedNetwork:
    """Predict every width x pattern x sparsity x kernel x dtype of every layer.

    Of several kernels for the same zeros and dtype the one with the least upper quantile stands for all. In layers
    whose width a group decides, the filter and channel parts of patterns are the group's, and the other parts skip in
    what is left.

    Raises
    ------
    UnsupportedError
        If no dense kernel can run a layer in an allowed dtype.
    """
    dtypes = DTYPES_OF[dtype_policy]
    kernels = _EligibleKernels(machinery)
    timer = _Timer(machinery, network_bytes=touched_bytes(layers))
    dense = {layer.name: tuple(_dense_requests(layer.problem, dtypes, kernels)) for layer in layers}
    for layer in layers:
        if not dense[layer.name]:
            raise UnsupportedError(
                f"layer {layer.name!r}: no dense kernel runs it in {' or '.join(dtypes)} on this machine; "
                "allow another --dtype"
            )
    timer.prepare(request for found in dense.values() for request in found)
    form = _fastest_form(layers, dense, dtypes, timer)
    dense_of = _DenseTimes(dtypes, kernels, timer, form)
    widths = _widths(layers, patterns, groups, dense_of)
    states = {layer.name: widths.states(layer) for layer in layers}
    wanted = {
        (layer.name, state): tuple(
            request
            for text in _patterns_for(patterns, layer, widths)
            for request in _sparse_requests(layer.problem, state, dtypes, text, kernels)
        )
        for layer in layers
        for state in states[layer.name]
        if 0 not in state
    }
    timer.prepare(request for found in wanted.values() for request in found)
    dense_of.prepare(narrowed(layer.problem, state) for layer in layers for state in states[layer.name] if all(state))
    return TimedNetwork(
        layers=tuple(
            _layer_options(
                layer, {state: wanted.get((layer.name, state), ()) for state in states[layer.name]}, dense_of
            )
            for layer in layers
        ),
        form=form,
        widths=widths,
    )


def _widths(
    layers: Sequence[CapturedLayer], patterns: Sequence[str], groups: Sequence[WidthGroup], dense_of: _DenseTimes
) -> Widths:
    """Levels of each group along the staircase of the time that its layers take, all other widths being whole."""
    kinds = {kind for text in patterns for kind in parse_pattern(text).kinds}
    narrowable, removable = not NARROWING.isdisjoint(kinds), REMOVAL in kinds
    if not removable:
        groups = [group.model_copy(update={"branch": ()}) for group in groups]
    groups = [group for group in groups if narrowable or group.branch]
    whole = Widths(
        groups=tuple(GroupLevels(group=group, levels=(group.units,)) for group in groups),
        axes=layer_axes(layers, groups),
    )
    by_name = {layer.name: layer for layer in layers}
    members = [[by_name[name] for name in whole.members(number)] for number in range(len(groups))]
    asked = [asked_counts(group.units) if narrowable else (group.units,) for group in groups]
    dense_of.prepare(
        narrowed(layer.problem, whole.at_level(layer.name, number, count))
        for number in range(len(groups))
        for layer in members[number]
        for count in asked[number]
    )
    joined = {
        number
        for axes in whole.axes.values()
        for axis in (axes.c_in, axes.c_out)
        if len(axis.parts) > 1
        for number, _ in axis.parts
    }
    skipping = kinds - NARROWING - {REMOVAL}

    def levels(number: int) -> tuple[int, ...]:
        def time_s(count: int) -> float:
            return sum(
                layer.calls * dense_of(narrowed(layer.problem, whole.at_level(layer.name, number, count))).time_s.median
                for layer in members[number]
            )

        most = MOST_LEVELS_AND_PATTERNS if skipping else MOST_LEVELS
        return levels_by_time(
            groups[number].units,
            time_s,
            most=min(most, MOST_LEVELS_JOINED) if number in joined else most,
            removable=bool(groups[number].branch),
            narrowable=narrowable,
        )

    found = tuple(GroupLevels(group=group, levels=levels(number)) for number, group in enumerate(groups))
    return replace(whole, groups=found)


def _patterns_for(patterns: Sequence[str], layer: CapturedLayer, widths: Widths) -> tuple[str, ...]:
    """The patterns of a layer without the parts that its width groups see to."""
    axes = widths.axes[layer.name]
    taken = {REMOVAL}
    if axes.c_out.parts:
        taken.add("filter")
    if axes.c_in.parts:
        taken.add("channel")
    left = {text: _without_parts(parse_pattern(text), taken) for text in patterns}
    return tuple(dict.fromkeys(text for text in left.values() if text))


def _without_parts(pattern: Pattern, taken: set[str]) -> str:
    return "+".join(part.name for part in pattern.parts if part.name not in taken)


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
    full: Problem, state: State, dtypes: Sequence[Dtype], text: str, kernels: _EligibleKernels
) -> Iterator[Request]:
    problem = narrowed(full, state)
    # The sparsities are those of the full layer, whatever the widths: losses are estimated for these.
    for dtype, sparsity in product(dtypes, levels_of(parse_pattern(text), full.weight_shape)):
        wanted = replace(problem.with_sparsity(text, sparsity), dtype=dtype)
        yield from ((wanted, kernel) for kernel in kernels(wanted) if "dense" not in kernel.patterns)


class _Timer:
    """Puts predictions of kernels into the network."""

    def __init__(self, machinery: Machinery, *, network_bytes: float) -> None:
        self._machinery = machinery
        self._network_bytes = network_bytes
        self._predictions: dict[tuple[Problem, str], Prediction] = {}
        self._conversions: dict[tuple[str, float], Interval] = {}

    def prepare(self, requests: Iterable[Request]) -> None:
        """Predict all at once what will be asked for."""
        by_kernel: dict[str, set[Problem]] = defaultdict(set)
        for problem, kernel in requests:
            if (problem, kernel.name) not in self._predictions:
                by_kernel[kernel.name].add(problem)
        for name, wanted in by_kernel.items():
            problems = list(wanted)
            predicted = self._machinery.performance_model.predict_many(problems, name)
            self._predictions.update(((problem, name), each) for problem, each in zip(problems, predicted, strict=True))

    def option(self, request: Request, form: NetworkForm) -> TimedOption:
        problem, kernel = request
        prediction = self._predictions[problem, kernel.name]
        around = [self._conversion(name, moved) for name, moved in _conversions(problem, kernel, form)]
        refetch_s = self._machinery.performance_model.refetch_s(problem, kernel.name, self._network_bytes)
        around.append(Interval(median=refetch_s, low=0.0, high=2.0 * refetch_s))
        dense = "dense" in kernel.patterns
        overhead_s = self._machinery.performance_model.network.layer_s if dense else self._machinery.call_overhead_s
        around.append(Interval(median=overhead_s, low=overhead_s, high=overhead_s))
        total = add_times([prediction.interval, *around])
        return TimedOption(
            problem=problem,
            state=(problem.c_in, problem.c_out),
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


def touched_bytes(layers: Sequence[CapturedLayer]) -> float:
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


class _DenseTimes:
    """The fastest dense way to run a problem, asked once for each."""

    def __init__(self, dtypes: Sequence[Dtype], kernels: _EligibleKernels, timer: _Timer, form: NetworkForm) -> None:
        self._dtypes, self._kernels, self.timer, self.form = dtypes, kernels, timer, form
        self._known: dict[Problem, TimedOption] = {}

    def prepare(self, problems: Iterable[Problem]) -> None:
        wanted = {problem for problem in problems if problem not in self._known}
        self.timer.prepare(
            request for problem in wanted for request in _dense_requests(problem, self._dtypes, self._kernels)
        )

    def __call__(self, problem: Problem) -> TimedOption:
        if problem not in self._known:
            requests = _dense_requests(problem, self._dtypes, self._kernels)
            options = (self.timer.option(request, self.form) for request in requests)
            self._known[problem] = min(options, key=lambda option: option.time_s.median)
        return self._known[problem]


def _layer_options(
    layer: CapturedLayer, sparse: Mapping[State, Sequence[Request]], dense_of: _DenseTimes
) -> LayerOptions:
    full = layer.problem.c_in, layer.problem.c_out
    faster: list[TimedOption] = []
    slower: list[TimedOption] = []
    narrower: list[TimedOption] = []
    for state, requests in sparse.items():
        if 0 in state:
            narrower.append(_removed(layer, state))
            continue
        dense = dense_of(narrowed(layer.problem, state))
        if state != full:
            narrower.append(dense)
        for option in _quickest(requests, dense_of).values():
            if option.time_s.high < dense.time_s.median:
                faster.append(option)
            elif state == full:
                slower.append(option)
    return LayerOptions(
        layer=layer,
        dense=dense_of(layer.problem.as_dense()),
        faster=tuple(faster),
        slower=tuple(slower),
        narrower=tuple(narrower),
    )


def _quickest(requests: Sequence[Request], dense_of: _DenseTimes) -> dict[Problem, TimedOption]:
    """Of several kernels for the same zeros the one with the least upper quantile."""
    quickest: dict[Problem, TimedOption] = {}
    for request in requests:
        option = dense_of.timer.option(request, dense_of.form)
        rival = quickest.get(option.problem)
        if rival is None or option.time_s.high < rival.time_s.high:
            quickest[option.problem] = option
    return quickest


def _removed(layer: CapturedLayer, state: State) -> TimedOption:
    return TimedOption(
        problem=replace(layer.problem.as_dense(), pattern=REMOVAL, sparsity=1.0),
        state=state,
        kernel=NO_KERNEL,
        time_s=Interval(median=0.0, low=0.0, high=0.0),
        around_s=0.0,
        bound="overhead",
        extrapolated=False,
    )
