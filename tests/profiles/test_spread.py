"""The spread of problems: deterministic, and good in any prefix."""

from __future__ import annotations

import pytest

from sparseplan.profiles.schema import Budget
from sparseplan.profiles.spread import BATCHES, FAMILIES, LIMITS, ROWS, spread_problems


def test_the_same_arguments_give_the_same_problems() -> None:
    assert spread_problems("quick", 2) == spread_problems("quick", 2)


def test_no_problem_comes_twice() -> None:
    problems = spread_problems("quick", 1)
    assert len(set(problems)) == len(problems)


@pytest.mark.parametrize("count", [150, 400])
def test_a_prefix_is_a_spread(count: int) -> None:
    prefix = spread_problems("quick", 2)[:count]
    assert {(p.op, p.dtype, p.pattern) for p in prefix} == {(f.op, f.dtype, f.pattern) for f in FAMILIES}
    assert {p.n for p in prefix if p.op == "conv2d"} == set(BATCHES)
    assert {p.n for p in prefix if p.op == "linear"} == set(ROWS)
    assert {p.threads for p in prefix} == {1, 2}
    assert {p.kernel[0] for p in prefix if p.op == "conv2d"} == {1, 3, 5, 7}
    sparse = [p.sparsity for p in prefix if p.pattern == "unstructured"]
    assert min(sparse) <= 0.5
    assert max(sparse) >= 0.95
    layers = {(p.op, p.c_in, p.c_out, p.h_in, p.kernel, p.stride, p.groups) for p in prefix}
    assert len(layers) >= 55


def test_dense_layers_all_come_once_before_any_twice() -> None:
    dense = [p for p in spread_problems("standard", 1) if (p.op, p.dtype, p.pattern) == ("linear", "float32", "dense")]
    layers = len({(p.c_in, p.c_out) for p in dense})
    assert layers > 10
    assert len({(p.c_in, p.c_out) for p in dense[:layers]}) == layers


@pytest.mark.parametrize("budget", ["quick", "standard", "full"])
def test_problems_fit_the_budget(budget: Budget) -> None:
    for problem in spread_problems(budget, 2):
        assert LIMITS[budget].admit(problem)


def test_one_thread_only() -> None:
    assert {p.threads for p in spread_problems("quick", 1)} == {1}
