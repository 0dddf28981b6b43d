"""Random problems for judging a model."""

from itertools import islice

import pytest

from sparseplan.kernels.problem import Problem
from sparseplan.profiles.fresh_problems import fresh_problems, under_families
from sparseplan.profiles.schema import Budget
from sparseplan.profiles.spread import FAMILIES, LIMITS, spread_problems


@pytest.mark.parametrize("budget", ["quick", "standard"])
def test_every_family_comes_in_turn_and_fits_the_budget(budget: Budget) -> None:
    problems = list(islice(fresh_problems(budget, 2, seed=3), 4 * len(FAMILIES)))
    families = [(family.op, family.dtype, family.pattern) for family in FAMILIES]
    assert [(p.op, p.dtype, p.pattern) for p in problems] == 4 * families
    assert all(LIMITS[budget].admit(problem) for problem in problems)


def test_a_seed_gives_its_problems_again_and_another_gives_others() -> None:
    first, again, other = (list(islice(fresh_problems("quick", 2, seed=seed), 20)) for seed in (1, 1, 2))
    assert first == again
    assert not set(first) & set(other)


def test_they_are_none_that_a_profile_measures() -> None:
    known = set(spread_problems("standard", 2))
    assert not known & set(islice(fresh_problems("standard", 2, seed=1), 200))


def test_a_layer_under_its_families() -> None:
    layer = Problem(op="linear", n=8, c_in=640, c_out=100, threads=2)
    found = list(under_families(layer, seed=0))
    assert len(found) == sum(family.op == "linear" for family in FAMILIES)
    assert {(p.c_in, p.c_out, p.n, p.threads) for p in found} == {(640, 100, 8, 2)}
    assert "dense" in {p.pattern for p in found}
