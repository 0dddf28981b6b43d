"""The comparison of plans: every way meets the same time, and a tiny run from end to end."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.networks.choose_rivals import (
    Race,
    choose_by_arithmetic,
    choose_by_magnitude,
    choose_uniform,
    make_race,
    spdy_losses,
)
from benchmarks.networks.compare_times import at_equal_time
from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.candidates import LayerCandidates, Option
from sparseplan.planner.capture import CapturedLayer
from sparseplan.planner.network_time import Network, Picked, total_time
from sparseplan.planner.options import TimedOption
from sparseplan.planner.rest import RestTime
from sparseplan.planner.schema import Candidate
from sparseplan.planner.widths import Widths, layer_axes

LEVELS = (0.0, 0.25, 0.5, 0.75, 0.9)


class ThreeLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Conv2d(8, 16, 3, padding=1) for _ in range(3))
        with torch.no_grad():
            self.b.weight.mul_(0.1)


def option(problem: Problem, sparsity: float, overhead_s: float) -> Option:
    pattern = "unstructured" if sparsity else "dense"
    asked = problem.with_sparsity(pattern, sparsity) if sparsity else problem
    time_s = asked.flop_useful / 1e9 + (overhead_s if sparsity else 0.0)
    interval = Interval(median=time_s, low=time_s, high=time_s)
    timed = TimedOption(
        problem=asked,
        state=(asked.c_in, asked.c_out),
        kernel=pattern,
        time_s=interval,
        around_s=0.0,
        bound="x",
        extrapolated=False,
    )
    candidate = Candidate(
        pattern=pattern,
        sparsity=sparsity,
        kernel=pattern,
        dtype="float32",
        time_s=interval,
        loss_increase=sparsity**3,
        extrapolated=False,
    )
    return Option(candidate=candidate, timed=timed)


@pytest.fixture
def race() -> Race:
    problem = Problem(op="conv2d", n=1, c_in=8, c_out=16, h_in=8, w_in=8, kernel=(3, 3), padding=(1, 1))
    layers = []
    for number, name in enumerate("abc"):
        options = [option(problem, level, 1e-5 * number) for level in LEVELS]
        layer = CapturedLayer(name=name, kind="conv2d", problem=problem, calls=1)
        layers.append(
            LayerCandidates(layer=layer, options=(options[0], options[2]), losers=tuple(options[1:2] + options[3:]))
        )
    between_s = Interval(median=1e-5, low=1e-5, high=2e-5)
    network = Network(
        layers=tuple(layers),
        widths=Widths(groups=(), axes=layer_axes([each.layer for each in layers], ())),
        width_loss=(),
        rest=RestTime(full_s=between_s, fixed_s=between_s),
    )
    return make_race(network, 2.0)


def test_every_level_is_there(race: Race) -> None:
    for layer in race.network.layers:
        assert [each.candidate.sparsity for each in layer.options] == list(LEVELS)
    assert spdy_losses(race).tolist() == [0.0, 1 / 16, 4 / 16, 9 / 16, 1.0] * 3


WAYS: dict[str, Callable[[Race], Any]] = {
    "uniform": choose_uniform,
    "magnitude": lambda race: choose_by_magnitude(race, ThreeLayers(), "unstructured"),
    "arithmetic": choose_by_arithmetic,
    "SPDY": lambda race: race.solve(spdy_losses(race)),
    "ours": lambda race: race.solve(np.array([level**3 for level in LEVELS] * 3)),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_every_way_meets_the_time(way: str, race: Race) -> None:
    picked = WAYS[way](race)
    assert picked is not None
    dense_s = total_time(race.network, race.network.dense).median
    assert total_time(race.network, picked).median <= dense_s / 2.0 * (1 + 1e-5)
    levels = [each.candidate.sparsity for each in picked.layers]
    if way == "uniform":
        assert len(set(levels)) == 1
    if way == "magnitude":
        assert levels[1] == max(levels)  # the layer of small weights loses most of them
    if way == "ours":
        every = product(*(layer.options for layer in race.network.layers))
        best = min(
            sum(each.candidate.sparsity**3 for each in picks)
            for picks in every
            if race.meets(Picked(layers=picks, kept=()))
        )
        assert math.isclose(sum(level**3 for level in levels), best, rel_tol=1e-3)


def test_losses_are_compared_at_one_measured_time() -> None:
    rows = [
        ("dense", 1.0, 0.1), ("slow", 0.8, 0.5), ("fast", 0.4, 0.7), ("none", math.nan, math.nan),
    ]  # fmt: skip
    table = pd.DataFrame(
        [
            {"pattern": "unstructured", "target": 2.0, "way": way, "measured_s": share * 3.0, "test_loss": loss}
            for way, share, loss in rows
        ]
    )
    (row,) = at_equal_time(table).to_dict("records")
    assert row["measured_speedup"] == pytest.approx(1.0 / 0.8)
    assert row["slow"] == pytest.approx(0.5)
    # Two thirds of the way from its own plan to the dense network.
    assert row["fast"] == pytest.approx(0.7 - 0.6 * (0.8 - 0.4) / 0.6)
    assert "none" not in row
