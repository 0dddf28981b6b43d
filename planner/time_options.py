"""Every way to run each layer, at every width that it can have, with its predicted time in the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ..kernels.errors import UnsupportedError
from ..kernels.pattern import LOW_RANK, Pattern, parse_pattern
from ..kernels.problem import Dtype, Problem
from ..perfmodel.schema import Interval
from .capture import CapturedLayer
from .group_levels import widths_of
from .kernel_times import DenseTimes, EligibleKernels, Request, Timer, Ways, dense_requests, fastest_form, touched_bytes
from .levels import levels_of
from .options import (
    DTYPES_OF,
    NO_KERNEL,
    REMOVAL,
    LayerOptions,
    Machinery,
    TimedNetwork,
    TimedOption,
    network_dtypes,
)
from .schema import DtypePolicy, WidthGroup
from .widths import State, Widths, narrowed

RIVAL_FRAC = 1.3
"""A kernel that at full width is slower than this times the best for the same zeros, and a pattern that is slower than
this times dense whatever its sparsity, is not asked about at narrower widths: there are many pairs of widths, and what
is so far behind does not come to the front by them."""


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
    what is left; there only the kernels that are near the best at full width are asked about.

    Raises
    ------
    UnsupportedError
        If no dense kernel can run a layer in an allowed dtype.
    """
    dtypes = DTYPES_OF[dtype_policy]
    kernels = EligibleKernels(machinery)
    timer = Timer(machinery, network_bytes=touched_bytes(layers))
    dense = {layer.name: tuple(dense_requests(layer.problem, dtypes, kernels)) for layer in layers}
    for layer in layers:
        if not dense[layer.name]:
            raise UnsupportedError(
                f"layer {layer.name!r}: no dense kernel runs it in {' or '.join(dtypes)} on this machine; "
                "allow another --dtype"
            )
    timer.prepare(request for found in dense.values() for request in found)
    form = fastest_form(layers, dense, network_dtypes(dtype_policy), timer)
    dense_of = DenseTimes(dtypes, kernels, timer, form)
    widths = widths_of(layers, patterns, groups, dense_of)
    kinds = {layer.name: _Kind.of(layer, patterns, widths) for layer in layers}
    ways = _options(tuple(dict.fromkeys(kinds.values())), dtypes, kernels, dense_of)
    return TimedNetwork(
        layers=tuple(ways[kinds[layer.name]].of_layer(layer) for layer in layers), form=form, widths=widths
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What layers have in common that have the same ways to run: networks repeat their blocks."""

    problem: Problem
    states: tuple[State, ...]
    patterns: tuple[str, ...]

    @staticmethod
    def of(layer: CapturedLayer, patterns: Sequence[str], widths: Widths) -> _Kind:
        return _Kind(problem=layer.problem, states=widths.states(layer), patterns=patterns_for(patterns, layer, widths))

    @property
    def full(self) -> State:
        return self.problem.c_in, self.problem.c_out

    @property
    def narrow(self) -> tuple[State, ...]:
        """The other widths, but those of a removed layer."""
        return tuple(state for state in self.states if all(state) and state != self.full)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The options of one kind of layer; see `LayerOptions`."""

    dense: TimedOption
    faster: tuple[TimedOption, ...]
    slower: tuple[TimedOption, ...]
    narrower: tuple[TimedOption, ...]

    def of_layer(self, layer: CapturedLayer) -> LayerOptions:
        return LayerOptions(
            layer=layer, dense=self.dense, faster=self.faster, slower=self.slower, narrower=self.narrower
        )


def _options(
    kinds: Sequence[_Kind], dtypes: Sequence[Dtype], kernels: EligibleKernels, dense_of: DenseTimes
) -> dict[_Kind, _Options]:
    """Of each kind of layer all options, those at full width first."""
    timer = dense_of.timer
    at_full = {kind: _sparse_requests(kind, kind.full, dtypes, kernels, among=None) for kind in kinds}
    timer.prepare(request for requests in at_full.values() for request in requests)
    dense_of.prepare(narrowed(kind.problem, state) for kind in kinds for state in kind.states if all(state))
    at_narrow: dict[_Kind, dict[State, Sequence[Request]]] = {}
    for kind, requests in at_full.items():
        near = _near_the_best(requests, dense_of(kind.problem.as_dense()), dense_of) if kind.narrow else frozenset()
        at_narrow[kind] = {state: _sparse_requests(kind, state, dtypes, kernels, among=near) for state in kind.narrow}
    timer.prepare(request for states in at_narrow.values() for found in states.values() for request in found)
    return {kind: _options_of(kind, at_full[kind], at_narrow[kind], dense_of) for kind in kinds}


def _near_the_best(requests: Sequence[Request], dense: TimedOption, dense_of: DenseTimes) -> Ways:
    """Those that may be worth asking about at other widths."""
    best = _quickest(requests, dense_of)
    timer, form, limit_s = dense_of.timer, dense_of.form, RIVAL_FRAC * dense.time_s.median
    return frozenset(
        (problem.pattern, kernel.name)
        for problem, kernel in requests
        if timer.option((problem, kernel), form).time_s.high <= min(RIVAL_FRAC * best[problem].time_s.high, limit_s)
    )


def _options_of(
    kind: _Kind,
    at_full: Sequence[Request],
    at_narrow: Mapping[State, Sequence[Request]],
    dense_of: DenseTimes,
) -> _Options:
    faster: list[TimedOption] = []
    slower: list[TimedOption] = []
    narrower: list[TimedOption] = []
    for state in kind.states:
        if 0 in state:
            narrower.append(_removed(kind.problem, state))
            continue
        is_full = state == kind.full
        dense = dense_of(narrowed(kind.problem, state))
        if not is_full:
            narrower.append(dense)
        sparse = _quickest(at_full if is_full else at_narrow[state], dense_of).values()
        for option in (*dense_of.others(narrowed(kind.problem, state)), *sparse):
            if option.time_s.high < dense.time_s.median:
                faster.append(option)
            elif is_full and not parse_pattern(option.problem.pattern).is_dense:
                slower.append(option)
    return _Options(
        dense=dense_of(kind.problem.as_dense()), faster=tuple(faster), slower=tuple(slower), narrower=tuple(narrower)
    )


def patterns_for(patterns: Sequence[str], layer: CapturedLayer, widths: Widths) -> tuple[str, ...]:
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


def _sparse_requests(
    kind: _Kind, state: State, dtypes: Sequence[Dtype], kernels: EligibleKernels, *, among: Ways | None
) -> list[Request]:
    problem = narrowed(kind.problem, state)
    found: list[Request] = []
    # What training factorises keeps all its channels.
    wanted = set(kind.patterns) if among is None else {text for text, _ in among} - {LOW_RANK}
    for text in kind.patterns:
        # The sparsities are those of the full layer, whatever the widths: losses are estimated for these.
        levels = levels_of(parse_pattern(text), kind.problem.weight_shape) if text in wanted else ()
        for dtype, sparsity in product(dtypes, levels):
            asked = replace(problem.with_sparsity(text, sparsity), dtype=dtype)
            found += [(asked, kernel) for kernel in kernels.sparse(asked, among)]
    return found


def _quickest(requests: Sequence[Request], dense_of: DenseTimes) -> dict[Problem, TimedOption]:
    """Of several kernels for the same zeros the one with the least upper quantile."""
    quickest: dict[Problem, TimedOption] = {}
    for request in requests:
        option = dense_of.timer.option(request, dense_of.form)
        rival = quickest.get(option.problem)
        if rival is None or option.time_s.high < rival.time_s.high:
            quickest[option.problem] = option
    return quickest


def _removed(problem: Problem, state: State) -> TimedOption:
    return TimedOption(
        problem=replace(problem.as_dense(), pattern=REMOVAL, sparsity=1.0),
        state=state,
        kernel=NO_KERNEL,
        time_s=Interval(median=0.0, low=0.0, high=0.0),
        around_s=0.0,
        bound="overhead",
        extrapolated=False,
    )
