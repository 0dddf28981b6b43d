"""The solver against brute force over every assignment."""

import itertools
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseplan.kernels.errors import InputError
from sparseplan.planner import label as label_module
from sparseplan.planner.knapsack import GAP_FRAC, TOLERANCE_FRAC, Knapsack
from sparseplan.planner.label import label
from sparseplan.planner.late import Late
from sparseplan.planner.relax import Relaxation, relax
from sparseplan.planner.solve import fastest, solve_knapsack

LAYER_SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


def build(sizes: list[int], seed: int, sources: int = 3) -> Knapsack:
    random = np.random.default_rng(seed)
    count = sum(sizes)
    return Knapsack(
        layer=np.repeat(np.arange(len(sizes)), sizes),
        source=random.integers(0, sources, count),
        median_s=random.uniform(1e-5, 1e-3, count),
        spread_s=random.uniform(0.0, 5e-4, count),
        loss=random.choice([0.0, 1e-6, 1.0], count) * random.uniform(0.0, 2.0, count),
        fixed_s=float(random.uniform(0.0, 1e-3)),
        base_spread_s=random.uniform(-1e-4, 3e-4, sources),
    )


def assignments(knapsack: Knapsack) -> list[np.ndarray]:
    layers = range(int(knapsack.layer.max()) + 1)
    return [
        np.array(each) for each in itertools.product(*(np.flatnonzero(knapsack.layer == layer) for layer in layers))
    ]


def upper_s(knapsack: Knapsack, chosen: np.ndarray) -> float:
    """The rule of the module, by loops."""
    spread = [-base for base in knapsack.base_spread_s]
    total = knapsack.fixed_s
    for option in chosen:
        total += knapsack.median_s[option]
        spread[knapsack.source[option]] += knapsack.spread_s[option]
    return float(total + sum(value**2 for value in spread) ** 0.5)


@settings(max_examples=80, deadline=None)
@given(sizes=LAYER_SIZES, seed=st.integers(0, 2**31), tightness=st.floats(0.0, 1.2))
def test_least_loss_equals_brute_force(sizes: list[int], seed: int, tightness: float) -> None:
    knapsack = build(sizes, seed)
    uppers = [upper_s(knapsack, chosen) for chosen in assignments(knapsack)]
    budget_s = min(uppers) + tightness * (max(uppers) - min(uppers)) - 1e-8
    solution = solve_knapsack(knapsack, budget_s=budget_s)
    surely = [
        float(knapsack.loss[chosen].sum())
        for chosen, upper in zip(assignments(knapsack), uppers, strict=True)
        if upper <= budget_s
    ]
    if solution.chosen is None:
        assert not surely
        assert solution.status == "infeasible"
        return
    assert upper_s(knapsack, np.array(solution.chosen)) <= budget_s * (1.0 + 2.0 * TOLERANCE_FRAC)
    assert solution.objective is not None
    assert solution.bound is not None
    assert solution.objective <= min(surely, default=np.inf) * (1.0 + 2.0 * GAP_FRAC) + 1e-6 * knapsack.loss.max()
    assert solution.bound <= solution.objective


@pytest.mark.parametrize("seed", range(6))
def test_losses_far_below_the_greatest_are_still_weighed(seed: int) -> None:
    knapsack = build([4] * 5, seed)
    loss = 10.0 ** np.random.default_rng(seed).uniform(-9.0, 1.0, len(knapsack.layer))
    knapsack = replace(knapsack, loss=loss)
    every = assignments(knapsack)
    uppers = [upper_s(knapsack, chosen) for chosen in every]
    budget_s = float(np.quantile(uppers, 0.7))
    least = min(loss[chosen].sum() for chosen, upper in zip(every, uppers, strict=True) if upper <= budget_s)
    solution = solve_knapsack(knapsack, budget_s=budget_s)
    assert solution.status == "optimal"
    assert solution.objective == pytest.approx(least, rel=1.1 * GAP_FRAC)


@settings(max_examples=80, deadline=None)
@given(sizes=LAYER_SIZES, seed=st.integers(0, 2**31), tightness=st.floats(0.05, 0.95))
def test_labels_alone_equal_brute_force(sizes: list[int], seed: int, tightness: float) -> None:
    knapsack = build(sizes, seed)
    every = assignments(knapsack)
    uppers = [upper_s(knapsack, chosen) for chosen in every]
    budget_s = min(uppers) + tightness * (max(uppers) - min(uppers))
    least = min(knapsack.loss[chosen].sum() for chosen, upper in zip(every, uppers, strict=True) if upper <= budget_s)
    # Nothing is known beforehand, neither a bound nor an assignment.
    relaxed = Relaxation(left=np.arange(len(knapsack.layer)))
    label(knapsack, relaxed, budget_s=budget_s, deadline=np.inf)
    assert relaxed.chosen is not None
    assert upper_s(knapsack, relaxed.chosen) <= budget_s * (1.0 + 2.0 * TOLERANCE_FRAC)
    assert relaxed.bound <= least * (1.0 + 1e-9) + 1e-12
    assert relaxed.loss - relaxed.bound <= GAP_FRAC * relaxed.loss + 1e-9


def test_labels_that_are_joined_still_bound() -> None:
    knapsack = build([6] * 40, seed=7, sources=4)
    budget_s = 1.3 * knapsack.upper_s(np.array(fastest(knapsack).chosen))
    exact = solve_knapsack(knapsack, budget_s=budget_s)
    relaxed = relax(knapsack, budget_s=budget_s, time_limit_s=10.0)
    assert relaxed.chosen is not None
    with patch.object(label_module, "FIRST_LABELS", 20), patch.object(label_module, "MOST_LABELS", 20):
        label(knapsack, relaxed, budget_s=budget_s, deadline=np.inf)
    assert exact.objective is not None
    assert relaxed.bound <= exact.objective * (1.0 + 1e-9)


def test_one_direction_shows_that_assignments_are_late_where_one_can() -> None:
    # Two assignments whose errors stand at right angles: each 1 s long, in a budget of 0.8 s without any median time.
    knapsack = Knapsack(
        layer=np.array([0, 0]),
        source=np.array([0, 1]),
        median_s=np.zeros(2),
        spread_s=np.ones(2),
        loss=np.zeros(2),
        fixed_s=0.0,
        base_spread_s=np.zeros(2),
    )
    both = [np.array([0]), np.array([1])]
    nothing = np.zeros(2)
    for limit_s, directions in ((0.6, 1), (0.8, 2)):
        late = Late(knapsack, limit_s)
        assert late.add(both)
        assert not late.add(both)
        late.separate(nothing)
        assert len(late.directions) == directions
        for chosen in both:
            error = knapsack.shared_error_s(chosen)
            assert max(direction @ error for direction in late.directions) > limit_s


@settings(max_examples=60, deadline=None)
@given(sizes=LAYER_SIZES, seed=st.integers(0, 2**31))
def test_fastest_equals_brute_force(sizes: list[int], seed: int) -> None:
    knapsack = build(sizes, seed)
    solution = fastest(knapsack)
    assert solution.status == "optimal"
    assert solution.upper_s == pytest.approx(
        min(upper_s(knapsack, chosen) for chosen in assignments(knapsack)), rel=2.0 * GAP_FRAC
    )


def test_shared_errors_add_and_independent_ones_do_not() -> None:
    def knapsack(second_source: int) -> Knapsack:
        return Knapsack(
            layer=np.array([0, 1]),
            source=np.array([0, second_source]),
            median_s=np.array([1.0, 1.0]),
            spread_s=np.array([0.3, 0.4]),
            loss=np.zeros(2),
            fixed_s=0.0,
            base_spread_s=np.zeros(2),
        )

    assert knapsack(0).upper_s(np.array([0, 1])) == pytest.approx(2.7)
    assert knapsack(1).upper_s(np.array([0, 1])) == pytest.approx(2.5)


def test_large_network_is_solved_to_its_gap_quickly() -> None:
    knapsack = build([30] * 57, seed=3, sources=12)
    quickest = fastest(knapsack)
    assert quickest.upper_s is not None
    solution = solve_knapsack(knapsack, budget_s=2.0 * quickest.upper_s)
    assert solution.status == "optimal"
    assert solution.gap_frac is not None
    assert solution.gap_frac <= 1.1 * GAP_FRAC
    assert solution.duration_s < 20.0


def test_nothing_is_pruned_beyond_the_target() -> None:
    knapsack = build([10] * 10, seed=5, sources=4)
    knapsack = replace(knapsack, loss=1e-3 / knapsack.median_s)
    quickest = fastest(knapsack)
    assert quickest.upper_s is not None
    for times in (1.5, 2.0):
        solution = solve_knapsack(knapsack, budget_s=times * quickest.upper_s)
        assert solution.upper_s is not None
        assert 0.97 * times * quickest.upper_s < solution.upper_s <= times * quickest.upper_s * (1.0 + 2e-6)


def test_time_limit_still_answers_within_the_budget() -> None:
    knapsack = build([10] * 12, seed=4, sources=4)
    budget_s = 1.5 * knapsack.upper_s(np.array(fastest(knapsack).chosen))
    solution = solve_knapsack(knapsack, budget_s=budget_s, time_limit_s=0.0)
    assert solution.status == "time_limit"
    assert solution.chosen is not None
    assert knapsack.upper_s(np.array(solution.chosen)) <= budget_s


def test_a_layer_without_options_and_bad_numbers_are_refused() -> None:
    good = build([2, 2], seed=0)
    with pytest.raises(InputError, match="at least one option"):
        Knapsack(
            layer=np.array([0, 2]),
            source=good.source[:2],
            median_s=good.median_s[:2],
            spread_s=good.spread_s[:2],
            loss=good.loss[:2],
            fixed_s=0.0,
            base_spread_s=good.base_spread_s,
        )
    with pytest.raises(InputError, match="finite"):
        Knapsack(
            layer=good.layer,
            source=good.source,
            median_s=good.median_s,
            spread_s=good.spread_s,
            loss=np.array([0.0, np.nan, 0.0, 0.0]),
            fixed_s=0.0,
            base_spread_s=good.base_spread_s,
        )
