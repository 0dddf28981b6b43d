"""Linked choices: HiGHS, the relaxation and elimination against brute force over every assignment, and each other."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.planner.eliminate import NEVER, Elimination
from sparseplan.planner.knapsack import GAP_FRAC, TOLERANCE_FRAC, Knapsack, Link
from sparseplan.planner.relax import solve_by_relaxation
from sparseplan.planner.solve import fastest, solve_knapsack

SOURCES = 3


def coupled(levels: list[int], edges: list[tuple[int, int]], seed: int, *, ways: int = 2) -> Knapsack:
    """Groups with so many widths each, and a layer between each pair of them: `ways` options for each pair of widths.

    Time is the product of the two widths, over the speed of the way.
    """
    random = np.random.default_rng(seed)
    layer, median_s, loss, links = [], [], [], []
    for number, (first, second) in enumerate(edges):
        pairs = [
            (a, b, way)
            for a in range(levels[first])
            for b in range(levels[second] if second != first else 1)
            for way in range(ways)
        ]
        for a, b, way in pairs:
            layer.append(number)
            wide = (a + 1) * (b + 1 if second != first else 1)
            median_s.append(1e-4 * wide * random.uniform(0.5, 1.0) / (1 + way))
            loss.append(way * random.uniform(0.0, 1.0))
        for axis, group in enumerate(sorted({first, second}, key=[first, second].index)):
            links.append(
                Link(
                    layer=number,
                    node=len(edges) + group,
                    asks=np.array([pair[axis] for pair in pairs]),
                    answers=np.arange(levels[group]),
                )
            )
    for group, count in enumerate(levels):
        for level in range(count):
            layer.append(len(edges) + group)
            median_s.append(random.uniform(0.0, 1e-5))
            loss.append((count - 1 - level) * random.uniform(0.2, 1.0))
    total = len(layer)
    return Knapsack(
        layer=np.array(layer),
        source=random.integers(0, SOURCES, total),
        median_s=np.array(median_s),
        spread_s=np.array(median_s) * random.uniform(0.0, 0.5, total),
        loss=np.array(loss),
        fixed_s=float(random.uniform(0.0, 1e-4)),
        base_spread_s=random.uniform(-1e-5, 3e-5, SOURCES),
        links=tuple(links),
    )


def assignments(knapsack: Knapsack) -> list[np.ndarray]:
    """Every one that keeps the links: groups first, then what the layers between them may take."""
    nodes = sorted({link.node for link in knapsack.links})
    found = []
    for widths in itertools.product(*(knapsack.options_of(node).tolist() for node in nodes)):
        free = []
        for layer in range(knapsack.layers):
            own = knapsack.options_of(layer).tolist()
            if layer in nodes:
                own = [widths[nodes.index(layer)]]
            for link in knapsack.links:
                if link.layer == layer:
                    first = knapsack.options_of(link.node)[0]
                    answer = link.answers[widths[nodes.index(link.node)] - first]
                    asking = zip(knapsack.options_of(layer).tolist(), link.asks, strict=True)
                    own = [option for option, asked in asking if asked == answer and option in own]
            free.append(own)
        found += [np.array(each) for each in itertools.product(*free)]
    return found


GRAPHS = st.sampled_from(
    [
        ([2, 2], [(0, 1)]),
        ([3, 2], [(0, 1), (1, 0)]),
        ([3, 3], [(0, 0), (0, 1)]),
        ([2, 2, 2], [(0, 1), (1, 2), (0, 2)]),
        ([2, 3, 2], [(0, 1), (1, 0), (1, 2)]),
    ]
)


@settings(max_examples=40, deadline=None)
@given(graph=GRAPHS, seed=st.integers(0, 2**31), tightness=st.floats(0.0, 1.1))
@example(graph=([3, 2], [(0, 1), (1, 0)]), seed=15805, tightness=0.0)
def test_both_solvers_equal_brute_force(
    graph: tuple[list[int], list[tuple[int, int]]], seed: int, tightness: float
) -> None:
    knapsack = coupled(*graph, seed)
    every = assignments(knapsack)
    uppers = [knapsack.upper_s(chosen) for chosen in every]
    budget_s = min(uppers) + tightness * (max(uppers) - min(uppers)) + 1e-9
    best = min(knapsack.loss[chosen].sum() for chosen, upper in zip(every, uppers, strict=True) if upper <= budget_s)
    exact = solve_knapsack(knapsack, budget_s=budget_s)
    assert exact.status == "optimal"
    assert exact.objective == pytest.approx(best, rel=2.0 * GAP_FRAC, abs=1e-6)
    relaxed = solve_by_relaxation(knapsack, budget_s=budget_s)
    for solution in (exact, relaxed):
        assert solution.bound is not None
        assert solution.bound <= best + 1e-9
        if solution.chosen is not None:
            assert any(np.array_equal(solution.chosen, chosen) for chosen in every)
            assert solution.upper_s is not None
            assert solution.upper_s <= budget_s * (1.0 + 2.0 * TOLERANCE_FRAC)
            assert solution.objective is not None
            assert solution.objective >= best - 1e-6


@settings(max_examples=30, deadline=None)
@given(graph=GRAPHS, seed=st.integers(0, 2**31))
def test_fastest_and_infeasible_equal_brute_force(graph: tuple[list[int], list[tuple[int, int]]], seed: int) -> None:
    knapsack = coupled(*graph, seed)
    least = min(knapsack.upper_s(chosen) for chosen in assignments(knapsack))
    assert fastest(knapsack).upper_s == pytest.approx(least, rel=2e-3)
    for solve in (solve_knapsack, solve_by_relaxation):
        assert solve(knapsack, budget_s=0.98 * least).chosen is None


@settings(max_examples=40, deadline=None)
@given(graph=GRAPHS, seed=st.integers(0, 2**31))
def test_elimination_equals_brute_force(graph: tuple[list[int], list[tuple[int, int]]], seed: int) -> None:
    knapsack = coupled(*graph, seed)
    every = assignments(knapsack)
    cost = np.random.default_rng(seed).normal(size=len(knapsack.layer))
    totals = np.array([cost[chosen].sum() for chosen in every])
    elimination = Elimination(knapsack)
    value, chosen = elimination.cheapest(cost)
    assert value == pytest.approx(totals.min())
    assert cost[chosen].sum() == pytest.approx(value)
    marginals = elimination.min_marginals(cost)
    for option, found in enumerate(marginals):
        containing = [total for total, each in zip(totals, every, strict=True) if option in each]
        assert found == pytest.approx(min(containing)) if containing else found >= NEVER / 2


def test_components_without_links_are_counted_too() -> None:
    linked = coupled([2, 2], [(0, 1)], seed=0)
    alone = Knapsack(
        layer=np.concatenate([linked.layer, [3, 3, 4]]),
        source=np.concatenate([linked.source, [0, 0, 0]]),
        median_s=np.concatenate([linked.median_s, [1e-5, 2e-5, 3e-5]]),
        spread_s=np.concatenate([linked.spread_s, np.zeros(3)]),
        loss=np.concatenate([linked.loss, [1.0, 0.0, 0.0]]),
        fixed_s=linked.fixed_s,
        base_spread_s=linked.base_spread_s,
        links=linked.links,
    )
    cost = np.arange(len(alone.layer), dtype=float)
    every = assignments(alone)
    assert Elimination(alone).cheapest(cost)[0] == min(cost[chosen].sum() for chosen in every)
    marginals = Elimination(alone).min_marginals(cost)
    for option in range(len(alone.layer)):
        assert marginals[option] == min(cost[chosen].sum() for chosen in every if option in chosen)


def test_a_chain_of_blocks_is_solved_to_its_gap() -> None:
    blocks = 24
    edges = [(0, each) for each in range(1, blocks + 1)] + [(each, 0) for each in range(1, blocks + 1)]
    knapsack = coupled([6] * (blocks + 1), edges, seed=1, ways=5)
    quickest = fastest(knapsack)
    assert quickest.upper_s is not None
    solution = solve_knapsack(knapsack, budget_s=2.5 * quickest.upper_s)
    assert solution.status == "optimal"
    assert solution.gap_frac is not None
    assert solution.gap_frac <= 1.1 * GAP_FRAC
    assert solution.upper_s is not None
    assert 0.95 * 2.5 * quickest.upper_s < solution.upper_s
    relaxed = solve_by_relaxation(knapsack, budget_s=2.5 * quickest.upper_s)
    assert relaxed.objective is not None
    assert solution.objective is not None
    assert relaxed.objective >= solution.objective * (1.0 - GAP_FRAC)
    assert relaxed.gap_frac is not None
    assert relaxed.gap_frac <= 0.02


def test_too_many_widths_in_one_place_are_refused() -> None:
    every = list(itertools.combinations(range(12), 2))
    with pytest.raises(UnsupportedError, match="leave filter and channel out of --patterns"):
        Elimination(coupled([6] * 12, every, seed=0, ways=1))


def test_a_link_that_does_not_fit_its_layers_is_refused() -> None:
    good = coupled([2, 2], [(0, 1)], seed=0)
    link = good.links[0]
    with pytest.raises(InputError, match="one state an option"):
        Knapsack(
            **{name: getattr(good, name) for name in ("layer", "source", "median_s", "spread_s", "loss", "fixed_s")},
            base_spread_s=good.base_spread_s,
            links=(Link(layer=link.layer, node=link.node, asks=link.asks[1:], answers=link.answers),),
        )
