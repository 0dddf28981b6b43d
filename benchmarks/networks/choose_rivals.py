"""How others choose what to prune: uniform, by global magnitude, by arithmetic, and as SPDY does.

Each takes the same layers, levels, kernels and predicted times as the planner, and must meet the same target by the
same rule; only the choice differs. A layer in which a level is not predicted to be surely faster stays dense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sparseplan.kernels.groups import group_norms, group_sizes
from sparseplan.kernels.pattern import BlockPart, parse_pattern
from sparseplan.planner.candidates import LayerCandidates
from sparseplan.planner.knapsack import Knapsack
from sparseplan.planner.layer_weights import layer_weight
from sparseplan.planner.network_time import Network, Picked, knapsack_of, total_time
from sparseplan.planner.solve import solve_knapsack

Floats = NDArray[np.float64]
BISECTIONS = 40
SOLVER_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """One network at one target speedup, with all levels of one pattern that are faster than dense.

    Attributes
    ----------
    network : Network
        Options by rising sparsity, the dense one first.
    """

    network: Network
    knapsack: Knapsack
    budget_s: float
    speedup: float

    def meets(self, picked: Picked) -> bool:
        numbers, start = [], 0
        for layer, option in zip(self.network.layers, picked.layers, strict=True):
            numbers.append(start + layer.options.index(option))
            start += len(layer.options)
        return self.knapsack.upper_s(np.array(numbers)) <= self.budget_s * (1.0 + 2e-6)

    def solve(self, loss: Floats) -> Picked | None:
        """Least of some loss [options] within the time."""
        found = solve_knapsack(replace(self.knapsack, loss=loss), budget_s=self.budget_s, time_limit_s=SOLVER_LIMIT_S)
        return None if found.chosen is None else self.network.picked(found.chosen)


def make_race(network: Network, speedup: float) -> Race:
    """All faster options of a network, also those that the planner's losses leave no use for.

    The target is one of medians: at upper quantiles a plan that uses one kernel everywhere would have to be faster than
    one that spreads its risk, and the times would not be equal.
    """
    full = replace(network, layers=tuple(_all_levels(layer) for layer in network.layers))
    sure = knapsack_of(full, speedup=speedup)
    knapsack = replace(sure, spread_s=np.zeros_like(sure.spread_s), base_spread_s=np.zeros_like(sure.base_spread_s))
    return Race(
        network=full, knapsack=knapsack, budget_s=total_time(full, full.dense).median / speedup, speedup=speedup
    )


def _all_levels(layer: LayerCandidates) -> LayerCandidates:
    dense_s = layer.dense.candidate.time_s.median
    sparse = [each for each in (*layer.options[1:], *layer.losers) if each.candidate.time_s.high < dense_s]
    ordered = sorted(sparse, key=lambda each: (each.candidate.sparsity, each.candidate.time_s.high))
    return replace(layer, options=(layer.dense, *ordered), losers=())


def choose_uniform(race: Race) -> Picked | None:
    """One sparsity for all layers, as low as the target allows."""
    return _lowest(race, lambda sparsity: [sparsity] * len(race.network.layers))


def choose_by_magnitude(race: Race, model: nn.Module, pattern: str) -> Picked | None:
    """One threshold on the size of all weights, or on the root mean square of all groups (Han et al., 2015)."""
    (part,) = parse_pattern(pattern).parts
    assert isinstance(part, BlockPart)
    sizes = []
    for layer in race.network.layers:
        weight = layer_weight(model, layer.layer.name)
        norms = group_norms(weight, part) / group_sizes(tuple(weight.shape), part).sqrt()
        sizes.append(np.sort(norms.flatten().numpy()))
    everything = np.sort(np.concatenate(sizes))

    def sparsities(frac: float) -> list[float]:
        threshold = everything[min(int(frac * len(everything)), len(everything) - 1)]
        return [float(np.searchsorted(size, threshold)) / len(size) for size in sizes]

    return _lowest(race, sparsities)


def choose_by_arithmetic(race: Race) -> Picked | None:
    """The planner's own losses against arithmetic in place of time; the arithmetic is cut until the time is met."""
    options = [
        (layer.layer.calls * option.timed.problem.flop_useful, option.candidate.loss_increase)
        for layer in race.network.layers
        for option in layer.options
    ]
    flop, loss = np.array(options).T
    counted = replace(
        race.knapsack,
        median_s=flop / flop.max(),
        spread_s=np.zeros_like(flop),
        loss=loss,
        fixed_s=0.0,
        base_spread_s=np.zeros_like(race.knapsack.base_spread_s),
    )
    starts = np.searchsorted(race.knapsack.layer, np.arange(race.knapsack.layers))
    dense = float(counted.median_s[starts].sum())
    best: Picked | None = None
    low, high = 0.0, 1.0
    for _ in range(12):
        frac = (low + high) / 2.0
        found = solve_knapsack(counted, budget_s=frac * dense, time_limit_s=SOLVER_LIMIT_S)
        picked = None if found.chosen is None else race.network.picked(found.chosen)
        if picked is None:
            low = frac
        elif race.meets(picked):
            best, low = picked, frac
        else:
            high = frac
    return best


def spdy_losses(race: Race) -> Floats:
    """SPDY's prior, [options]: the square of the level's number over that of the sparsest (eq. 4 of the paper)."""
    return np.array(
        [
            (number / max(len(layer.options) - 1, 1)) ** 2
            for layer in race.network.layers
            for number in range(len(layer.options))
        ]
    )


def draw_spdy(generator: np.random.Generator) -> float:
    """SPDY's coefficients lie between 0 and 1."""
    return float(generator.random())


def _lowest(race: Race, sparsities: Callable[[float], Sequence[float]]) -> Picked | None:
    """Bisection over one knob; each layer takes the level next to its sparsity, dense where that is not faster."""
    best: Picked | None = None
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        knob = (low + high) / 2.0
        nearest = tuple(
            min(layer.options, key=lambda option, asked=asked: abs(option.candidate.sparsity - asked))  # type: ignore[misc]
            for layer, asked in zip(race.network.layers, sparsities(knob), strict=True)
        )
        picked = Picked(layers=nearest, kept=())
        if race.meets(picked):
            best, high = picked, knob
        else:
            low = knob
    return best
