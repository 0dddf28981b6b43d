"""Medians, their intervals, and rivals in alternation."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseplan.profiles import timing
from sparseplan.profiles.timing import (
    FEWEST_SAMPLES,
    NETWORK_TURN,
    TimeStats,
    measure,
    measure_alternating,
    pool,
    summarise,
)


@pytest.mark.parametrize(("n", "low", "high"), [(10, 2, 9), (20, 6, 15), (50, 18, 33)])
def test_ranks_are_those_of_the_tables(n: int, low: int, high: int) -> None:
    # Le Boudec, table A.1: 95 % interval of the median; one rank wider is still an interval.
    found = summarise(list(range(n, 0, -1)))
    assert found.median == np.median(range(1, n + 1))
    assert low - 1 <= found.low <= low
    assert high <= found.high <= high + 1
    assert found.n == n


def test_the_interval_covers_the_median_of_a_skewed_law() -> None:
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        found = summarise(np.exp(generator.standard_normal(31)).tolist())
        covered.append(found.low <= 1.0 <= found.high)
    assert np.mean(covered) >= 0.94


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=50))
def test_the_interval_holds_the_median(samples: list[float]) -> None:
    found = summarise(samples)
    assert min(samples) <= found.low <= found.median <= found.high <= max(samples)


class FakeClock:
    """A clock that only the calls advance."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def call(self, name: str, cost_s: float) -> None:
        self.now += cost_s
        self.order.append(name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: fake.now)
    return fake


def test_rivals_alternate_and_steady_ones_stop_early(clock: FakeClock) -> None:
    found = measure_alternating([lambda: clock.call("a", 1e-3), lambda: clock.call("b", 3e-3)], budget_s=100.0)
    assert [stats.median for stats in found] == pytest.approx([1e-3, 3e-3])
    assert [stats.n for stats in found] == [7, 7]
    measured = clock.order[6:]
    # Before each timed call of the short rival comes one that fills the caches; the long one does so by itself.
    assert measured == ["a", "a", "b"] * 7


def test_networks_settle_for_a_while_before_each_turn(clock: FakeClock) -> None:
    measure_alternating(
        [lambda: clock.call("a", 1e-3), lambda: clock.call("b", 12e-3), lambda: clock.call("c", 0.1)],
        budget_s=100.0,
        turn=NETWORK_TURN,
    )
    turn = ["a"] * (10 + 3) + ["b"] * (2 + 3) + ["c"] * 3
    # One call of the slowest less warms it up.
    assert clock.order[8:] == turn * 3


def test_short_calls_are_repeated_within_a_sample(clock: FakeClock) -> None:
    found = measure(lambda: clock.call("a", 1e-6), budget_s=1.0)
    assert found.median == pytest.approx(1e-6)
    assert len(clock.order) >= 7 * 200


def test_the_budget_ends_noisy_measurements(clock: FakeClock) -> None:
    generator = np.random.default_rng(0)
    found = measure(lambda: clock.call("a", float(generator.uniform(1e-3, 3e-3))), budget_s=0.1)
    assert 7 <= found.n <= 70
    assert clock.now < 0.2


def test_too_long_calls_still_get_their_samples(clock: FakeClock) -> None:
    assert measure(lambda: clock.call("a", 5.0), budget_s=0.1).n == FEWEST_SAMPLES
    assert len(clock.order) == 2 + FEWEST_SAMPLES


def test_calls_that_fit_the_budget_get_as_many_samples_as_an_interval_needs(clock: FakeClock) -> None:
    assert measure(lambda: clock.call("a", 5.0), budget_s=100.0).n == 7


def test_a_first_call_that_compiles_does_not_end_the_warm_up(clock: FakeClock) -> None:
    costs = iter([30.0])
    found = measure(lambda: clock.call("a", next(costs, 1e-6)), budget_s=0.1)
    assert found.median == pytest.approx(1e-6)
    assert len(clock.order) >= 7 * 200


def test_the_garbage_collector_is_back_after_an_error() -> None:
    calls = iter(range(5))

    def fails() -> None:
        if next(calls) == 4:
            raise ValueError("fifth call")

    with pytest.raises(ValueError, match="fifth"):
        measure(fails, budget_s=0.1)
    assert gc.isenabled()


def _take(median: float, scatter_frac: float = 0.01) -> TimeStats:
    return TimeStats(median=median, low=median * (1 - scatter_frac), high=median * (1 + scatter_frac), n=9)


def test_pooled_takes_span_their_medians_and_the_typical_scatter() -> None:
    found = pool([_take(1.0), _take(1.2), _take(1.1, scatter_frac=0.5)])
    assert found.median == 1.1
    assert found.low == pytest.approx(1.0 * 0.99)
    assert found.high == pytest.approx(1.2 * 1.01)
    assert found.n == 27
