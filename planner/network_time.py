"""From candidates of layers to the time of the whole network, as the solver and the totals count it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..perfmodel.schema import Interval
from .candidates import LayerCandidates, Option
from .solve import Floats, Knapsack

REST = ""
"""Name of the error that the operations between the layers share; kernels share theirs under their own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Candidates of all layers, and the time of what lies between them."""

    layers: tuple[LayerCandidates, ...]
    rest_s: Interval

    @property
    def dense(self) -> tuple[Option, ...]:
        return tuple(layer.dense for layer in self.layers)

    @property
    def sources(self) -> Mapping[str, int]:
        """Number of each shared error."""
        names = sorted({option.candidate.kernel for layer in self.layers for option in layer.options})
        return {name: number for number, name in enumerate([REST, *names])}

    def picked(self, chosen: Sequence[int]) -> tuple[Option, ...]:
        """The options of a solution, one a layer."""
        every = [option for layer in self.layers for option in layer.options]
        return tuple(every[number] for number in chosen)


def total_time(network: Network, picked: Sequence[Option]) -> Interval:
    """Time of the whole network; errors of one kernel add, those of different ones add in quadrature."""
    median_s = _median_s(network, picked)
    up = np.linalg.norm(_errors_s(network, picked, upper=True))
    down = np.linalg.norm(_errors_s(network, picked, upper=False))
    return Interval(median=median_s, low=max(median_s - float(down), 0.0), high=median_s + float(up))


def knapsack_of(network: Network, *, speedup: float | None) -> Knapsack:
    """The knapsack against a target speedup over the dense network, or against a latency."""
    sources = network.sources
    rows = [
        (number, sources[option.candidate.kernel], layer.layer.calls, option)
        for number, layer in enumerate(network.layers)
        for option in layer.options
    ]
    times = [(calls, option.candidate.time_s) for _, _, calls, option in rows]
    base = np.zeros(len(sources)) if speedup is None else _errors_s(network, network.dense, upper=True) / speedup
    base[sources[REST]] -= network.rest_s.high - network.rest_s.median
    return Knapsack(
        layer=np.array([layer for layer, _, _, _ in rows], dtype=np.intp),
        source=np.array([source for _, source, _, _ in rows], dtype=np.intp),
        median_s=np.array([calls * time.median for calls, time in times]),
        spread_s=np.array([calls * max(time.high - time.median, 0.0) for calls, time in times]),
        loss=np.array([option.candidate.loss_increase for *_, option in rows]),
        fixed_s=network.rest_s.median,
        base_spread_s=base,
    )


def sure_speedup(network: Network, picked: Sequence[Option]) -> float:
    """The largest target speedup that an assignment meets by the solver's rule.

    With D and b the dense network's median and errors, P and a the planned one's, the target X is met where
    P + |a - b / X| <= D / X. Squared, this is a quadratic in 1 / X; its larger root is the one that is not negative
    before squaring. Where the dense errors exceed D no target is sure, and the ratio counts the plan's errors alone.
    """
    dense_s, planned_s = _median_s(network, network.dense), _median_s(network, picked)
    dense_error, error = (_errors_s(network, each, upper=True) for each in (network.dense, picked))
    square = dense_s**2 - float(dense_error @ dense_error)
    if square <= 0.0:
        return dense_s / (planned_s + float(np.linalg.norm(error)))
    half = dense_s * planned_s - float(dense_error @ error)
    discriminant = half**2 - square * (planned_s**2 - float(error @ error))
    return square / (half + math.sqrt(max(discriminant, 0.0)))


def _median_s(network: Network, picked: Sequence[Option]) -> float:
    return network.rest_s.median + sum(
        layer.layer.calls * option.candidate.time_s.median for layer, option in zip(network.layers, picked, strict=True)
    )


def _errors_s(network: Network, picked: Sequence[Option], *, upper: bool) -> Floats:
    """[sources]: distance of the upper (or lower) quantiles from the medians, summed over what shares an error."""
    sources = network.sources
    errors = np.zeros(len(sources))

    def distance(time: Interval) -> float:
        return max(time.high - time.median if upper else time.median - time.low, 0.0)

    errors[sources[REST]] = distance(network.rest_s)
    for layer, option in zip(network.layers, picked, strict=True):
        errors[sources[option.candidate.kernel]] += layer.layer.calls * distance(option.candidate.time_s)
    return errors
