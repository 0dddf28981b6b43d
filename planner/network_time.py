"""From candidates of layers and widths to the time of the whole network, as the solver and the totals count it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..kernels.pattern import parse_pattern
from ..perfmodel.schema import Interval
from .candidates import LayerCandidates, Option
from .knapsack import Floats, Knapsack
from .rest import RestTime
from .width_links import OptionTable, option_table
from .widths import Widths

REST = ""
"""Name of the error that the operations between the layers share; kernels share theirs under their own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """A decision: one option a layer, and the units that each width group keeps."""

    layers: tuple[Option, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Candidates of all layers, the widths that they share, and the time of what lies between them.

    Attributes
    ----------
    width_loss : tuple of tuple of float
        By group and level.
    """

    layers: tuple[LayerCandidates, ...]
    widths: Widths
    width_loss: tuple[tuple[float, ...], ...]
    rest: RestTime

    @property
    def dense(self) -> Picked:
        return Picked(layers=tuple(layer.dense for layer in self.layers), kept=self.widths.full)

    @property
    def has_choice(self) -> bool:
        """Whether anything could be faster than the dense network."""
        return any(len(layer.options) > 1 for layer in self.layers)

    @cached_property
    def sources(self) -> Mapping[str, int]:
        """Number of each shared error."""
        names = sorted({option.candidate.kernel for layer in self.layers for option in layer.options})
        return {name: number for number, name in enumerate([REST, *names])}

    @cached_property
    def lossless(self) -> Mapping[int, int]:
        """From the number of a dense option to that of the fastest other dense kernel at the same widths."""
        found: dict[int, int] = {}
        first = 0
        for layer in self.layers:
            others = [number for number, option in enumerate(layer.options) if option.timed.other_dense]
            for number, option in enumerate(layer.options):
                same = [
                    other
                    for other in others
                    if not option.timed.other_dense
                    and parse_pattern(option.candidate.pattern).is_dense
                    and layer.options[other].timed.state == option.timed.state
                    and layer.options[other].candidate.loss_increase <= option.candidate.loss_increase
                ]
                if same:
                    fastest = min(same, key=lambda other: layer.options[other].candidate.time_s.high)
                    found[first + number] = first + fastest
            first += len(layer.options)
        return found

    @cached_property
    def table(self) -> OptionTable:
        """Everything that is decided, as the solver numbers it."""
        return option_table(self.layers, self.widths)

    def picked(self, chosen: Sequence[int]) -> Picked:
        """What a solution decides."""
        every = [option for layer in self.layers for option in layer.options]
        count = len(self.layers)
        levels = [
            each.levels[option - first]
            for each, option, first in zip(
                self.widths.groups,
                chosen[count : count + len(self.widths.groups)],
                self.table.first_of_group,
                strict=True,
            )
        ]
        return Picked(layers=tuple(every[number] for number in chosen[:count]), kept=tuple(levels))

    def loss(self, picked: Picked) -> float:
        """Expected rise of the loss of a decision."""
        return sum(option.candidate.loss_increase for option in picked.layers) + sum(
            losses[each.levels.index(kept)]
            for losses, each, kept in zip(self.width_loss, self.widths.groups, picked.kept, strict=True)
        )


def total_time(network: Network, picked: Picked) -> Interval:
    """Time of the whole network; errors of one kernel add, those of different ones add in quadrature."""
    median_s = _median_s(network, picked)
    up = np.linalg.norm(_errors_s(network, picked, upper=True))
    down = np.linalg.norm(_errors_s(network, picked, upper=False))
    return Interval(median=median_s, low=max(median_s - float(down), 0.0), high=median_s + float(up))


def knapsack_of(network: Network, *, speedup: float | None) -> Knapsack:
    """The knapsack against a target speedup over the dense network, or against a latency."""
    sources, table = network.sources, network.table
    options = [(layer.layer.calls, option) for layer in network.layers for option in layer.options]
    times = [(calls, option.candidate.time_s) for calls, option in options]
    times += [(1, time) for levels in network.rest.by_level for time in levels]
    losses = [option.candidate.loss_increase for _, option in options]
    losses += [loss for levels in network.width_loss for loss in levels]
    kernels = [sources[option.candidate.kernel] for _, option in options]
    count = len(table.layer)
    base = np.zeros(len(sources)) if speedup is None else _errors_s(network, network.dense, upper=True) / speedup
    base[sources[REST]] -= network.rest.fixed_s.high - network.rest.fixed_s.median
    return Knapsack(
        layer=table.layer,
        source=_filled(kernels, count).astype(np.intp),
        median_s=_filled([calls * time.median for calls, time in times], count),
        spread_s=_filled([calls * max(time.high - time.median, 0.0) for calls, time in times], count),
        loss=_filled(losses, count),
        fixed_s=network.rest.fixed_s.median,
        base_spread_s=base,
        links=table.links,
    )


def _filled(values: Sequence[float], count: int) -> Floats:
    """With zeros for what only adds up widths (and the number of REST, for what is no kernel's)."""
    return np.concatenate([np.array(values, dtype=float), np.zeros(count - len(values))])


def sure_speedup(network: Network, picked: Picked) -> float:
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


def _rest_times(network: Network, picked: Picked) -> list[Interval]:
    return [
        network.rest.fixed_s,
        *(
            times[each.levels.index(kept)]
            for times, each, kept in zip(network.rest.by_level, network.widths.groups, picked.kept, strict=True)
        ),
    ]


def _median_s(network: Network, picked: Picked) -> float:
    return sum(time.median for time in _rest_times(network, picked)) + sum(
        layer.layer.calls * option.candidate.time_s.median
        for layer, option in zip(network.layers, picked.layers, strict=True)
    )


def _errors_s(network: Network, picked: Picked, *, upper: bool) -> Floats:
    """[sources]: distance of the upper (or lower) quantiles from the medians, summed over what shares an error."""
    sources = network.sources
    errors = np.zeros(len(sources))

    def distance(time: Interval) -> float:
        return max(time.high - time.median if upper else time.median - time.low, 0.0)

    errors[sources[REST]] = sum(distance(time) for time in _rest_times(network, picked))
    for layer, option in zip(network.layers, picked.layers, strict=True):
        errors[sources[option.candidate.kernel]] += layer.layer.calls * distance(option.candidate.time_s)
    return errors
