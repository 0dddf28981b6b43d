"""Times of kernels as they are in the network: what they convert, call and fetch again included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import get_args

from ..kernels.dense import runs_in_networks
from ..kernels.pattern import DENSE, parse_pattern
from ..kernels.problem import DTYPE_BYTES, Dtype, Problem
from ..kernels.select import eligible
from ..kernels.spec import KernelSpec, NetworkLayout
from ..perfmodel.predict import Prediction
from ..perfmodel.schema import Interval
from .capture import CapturedLayer
from .options import Machinery, NetworkForm, TimedOption, add_times

Request = tuple[Problem, KernelSpec]
Ways = frozenset[tuple[str, str]]
"""(pattern, name of a kernel)."""


class EligibleKernels:
    """`eligible`, asked once for each problem: networks repeat their layers."""

    def __init__(self, machinery: Machinery) -> None:
        self._machine = machinery.machine
        self._known: dict[Problem, tuple[KernelSpec, ...]] = {}
        self._registry: dict[tuple[str, str], list[KernelSpec]] = defaultdict(list)
        for kernel in machinery.registry:
            self._registry[kernel.op, kernel.dtype].append(kernel)

    def dense(self, problem: Problem) -> Iterator[KernelSpec]:
        """Dense kernels that the network would run if nothing were planned."""
        return (
            kernel for kernel in self(problem) if "dense" in kernel.patterns and runs_in_networks(kernel, self._machine)
        )

    def other_dense(self, problem: Problem) -> Iterator[KernelSpec]:
        """Dense kernels that torch would not run by itself, but that can be put in a layer's place."""
        return (
            kernel
            for kernel in self(problem)
            if "dense" in kernel.patterns and not runs_in_networks(kernel, self._machine)
        )

    def sparse(self, problem: Problem, among: Ways | None) -> Sequence[KernelSpec]:
        """Kernels that skip a part of the problem's pattern; of some ways only, if these are given."""
        if among is None:
            # An int8 kernel that runs dense layers too skips what its other patterns say.
            kinds = set(parse_pattern(problem.pattern).kinds)
            return [kernel for kernel in self(problem) if not kinds.isdisjoint(kernel.patterns)]
        wanted = [
            kernel for kernel in self._registry[problem.op, problem.dtype] if (problem.pattern, kernel.name) in among
        ]
        return eligible(problem, self._machine, wanted)

    def __call__(self, problem: Problem) -> tuple[KernelSpec, ...]:
        if problem not in self._known:
            self._known[problem] = eligible(problem, self._machine, self._registry[problem.op, problem.dtype])
        return self._known[problem]


def dense_requests(problem: Problem, dtypes: Sequence[Dtype], kernels: EligibleKernels) -> Iterator[Request]:
    """Every dense way in which the network would run a problem."""
    for dtype in dtypes:
        wanted = replace(problem, dtype=dtype)
        yield from ((wanted, kernel) for kernel in kernels.dense(wanted))


def other_dense_requests(problem: Problem, dtypes: Sequence[Dtype], kernels: EligibleKernels) -> Iterator[Request]:
    """Every dense way that must be put in the layer's place."""
    for dtype in dtypes:
        wanted = replace(problem, dtype=dtype)
        yield from ((wanted, kernel) for kernel in kernels.other_dense(wanted))


class Timer:
    """Puts predictions of kernels into the network.

    Parameters
    ----------
    network_bytes : float
        What a pass through the network touches before it comes to the same layer again.
    """

    def __init__(self, machinery: Machinery, *, network_bytes: float) -> None:
        self._machinery = machinery
        self._network_bytes = network_bytes
        self._predictions: dict[Request, tuple[Prediction, float]] = {}
        self._conversions: dict[tuple[str, float], Interval] = {}

    def prepare(self, requests: Iterable[Request]) -> None:
        """Predict all at once what will be asked for."""
        model = self._machinery.performance_model
        by_kernel: dict[str, dict[Problem, Request]] = defaultdict(dict)
        for request in requests:
            if request not in self._predictions:
                by_kernel[request[1].name][request[0]] = request
        for name, wanted in by_kernel.items():
            problems = list(wanted)
            waits_s = model.waits_s(problems, name, self._network_bytes).tolist()
            predicted = zip(model.predict_many(problems, name), waits_s, strict=True)
            self._predictions.update(zip(wanted.values(), predicted, strict=True))

    def option(self, request: Request, form: NetworkForm) -> TimedOption:
        """A prepared request as it is in a network of that form."""
        problem, kernel = request
        prediction, waits_s = self._predictions[request]
        around = [self._conversion(name, moved) for name, moved in _conversions(problem, kernel, form)]
        around.append(Interval(median=waits_s, low=0.0, high=2.0 * waits_s))
        dense = problem.pattern == DENSE.text
        hosted = dense and runs_in_networks(kernel, self._machinery.machine)
        overhead_s = self._machinery.performance_model.network.layer_s if hosted else self._machinery.call_overhead_s
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
            other_dense=dense and not hosted,
        )

    def _conversion(self, name: str, bytes_moved: float) -> Interval:
        key = name, bytes_moved
        if key not in self._conversions:
            predicted = self._machinery.performance_model.predict_elementwise(name, bytes_moved)
            self._conversions[key] = predicted.interval
        return self._conversions[key]


def _conversions(problem: Problem, kernel: KernelSpec, form: NetworkForm) -> Iterator[tuple[str, float]]:
    """(elementwise operation, bytes read and written) that a kernel of another form needs around it."""
    if kernel.layout != form.layout and problem.op == "conv2d":
        yield f"{form.layout}_to_{kernel.layout}", 2.0 * problem.input_bytes
        yield f"{kernel.layout}_to_{form.layout}", 2.0 * problem.output_bytes
    if problem.dtype != form.dtype:
        both_frac = 1.0 + DTYPE_BYTES[form.dtype] / DTYPE_BYTES[problem.dtype]
        yield "cast", both_frac * problem.input_bytes
        yield "cast", both_frac * problem.output_bytes


class DenseTimes:
    """The fastest dense way to run a problem, asked once for each."""

    def __init__(self, dtypes: Sequence[Dtype], kernels: EligibleKernels, timer: Timer, form: NetworkForm) -> None:
        self._dtypes, self._kernels, self.timer, self.form = dtypes, kernels, timer, form
        self._known: dict[Problem, TimedOption] = {}

    def prepare(self, problems: Iterable[Problem]) -> None:
        """Predict all at once what will be asked for."""
        wanted = {problem for problem in problems if problem not in self._known}
        self.timer.prepare(
            request
            for problem in wanted
            for requests in (dense_requests, other_dense_requests)
            for request in requests(problem, self._dtypes, self._kernels)
        )

    def __call__(self, problem: Problem) -> TimedOption:
        if problem not in self._known:
            requests = dense_requests(problem, self._dtypes, self._kernels)
            options = (self.timer.option(request, self.form) for request in requests)
            self._known[problem] = min(options, key=lambda option: option.time_s.median)
        return self._known[problem]

    def others(self, problem: Problem) -> Iterator[TimedOption]:
        """Dense ways that torch would not take by itself."""
        requests = other_dense_requests(problem, self._dtypes, self._kernels)
        return (self.timer.option(request, self.form) for request in requests)


def touched_bytes(layers: Sequence[CapturedLayer]) -> float:
    """What a pass through the network touches before it comes to the same layer again: all weights, and the largest
    activations, whose memory the others use again."""
    weights = sum(layer.problem.weight_bytes for layer in layers)
    return weights + max((layer.problem.input_bytes + layer.problem.output_bytes for layer in layers), default=0.0)


def fastest_form(
    layers: Sequence[CapturedLayer],
    dense: Mapping[str, Sequence[Request]],
    dtypes: Sequence[Dtype],
    timer: Timer,
) -> NetworkForm:
    """How activations travel in the fastest dense network."""

    def network_s(form: NetworkForm) -> float:
        return sum(
            layer.calls * min(timer.option(request, form).time_s.median for request in dense[layer.name])
            for layer in layers
        )

    forms = [NetworkForm(layout=layout, dtype=dtype) for layout, dtype in product(get_args(NetworkLayout), dtypes)]
    return min(forms, key=network_s)
