from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from sparseplan.kernels.groups import expand_groups, group_norms, group_sizes, magnitude_mask
from sparseplan.kernels.pattern import BlockPart, parse_pattern
from sparseplan.trainer.group_lasso import group_soft_threshold, shrink_doomed_groups, structured_parts


def part_of(text: str) -> BlockPart:
    part = parse_pattern(text).parts[0]
    assert isinstance(part, BlockPart)
    return part


def random_weight(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6), ratio=st.floats(0.05, 0.95))
def test_one_group_agrees_with_a_numerical_minimisation(seed: int, size: int, ratio: float) -> None:
    weight = random_weight(1, size, 1, 1, seed=seed)
    value = weight.flatten().numpy()
    threshold = ratio * float(np.linalg.norm(value))

    def objective(w: np.ndarray) -> float:
        return 0.5 * float(np.sum((w - value) ** 2)) + threshold * float(np.linalg.norm(w))

    found = minimize(objective, value, method="BFGS", options={"gtol": 1e-10}).x
    result = group_soft_threshold(weight, part_of("filter"), threshold=torch.full((1, 1, 1, 1), threshold))
    np.testing.assert_allclose(result.flatten().numpy(), found, atol=1e-5 * max(1.0, float(np.abs(value).max())))


@pytest.mark.parametrize("text", ["filter", "channel", "shape", "filter2d", "depth", "block:3x2", "unstructured"])
def test_no_neighbour_is_better_than_the_step(text: str) -> None:
    part, weight = part_of(text), random_weight(7, 5, 3, 3)
    norms = group_norms(weight, part)
    threshold = norms.median() * torch.ones_like(norms)

    def objective(w: torch.Tensor) -> float:
        return float(0.5 * (w - weight).square().sum() + (threshold * group_norms(w, part)).sum())

    result = group_soft_threshold(weight, part, threshold=threshold)
    least = objective(result)
    for seed in range(20):
        for scale in (1e-1, 1e-3):
            assert objective(result + scale * random_weight(7, 5, 3, 3, seed=seed)) > least


@pytest.mark.parametrize("text", ["filter", "shape", "block:3x2"])
def test_groups_below_their_threshold_are_exactly_zero_and_others_only_shorter(text: str) -> None:
    part, weight = part_of(text), random_weight(7, 5, 3, 3)
    norms = group_norms(weight, part)
    threshold = norms.median() * torch.ones_like(norms)
    result = group_soft_threshold(weight, part, threshold=threshold)
    dead = expand_groups(norms <= threshold, (7, 5, 3, 3), part)
    assert dead.any()
    assert not dead.all()
    assert (result[dead] == 0).all()
    assert torch.allclose(group_norms(result, part), (norms - threshold).clamp_min(0))


def test_a_group_of_zeros_stays_zero_and_finite() -> None:
    weight = torch.zeros(2, 3, 1, 1)
    result = group_soft_threshold(weight, part_of("filter"), threshold=torch.ones(2, 1, 1, 1))
    assert (result == 0).all()


@pytest.mark.parametrize("text", ["filter", "filter+shape", "block:3x2"])
def test_only_the_groups_that_the_plan_takes_away_shrink(text: str) -> None:
    weight, pattern = random_weight(8, 6, 3, 3), parse_pattern(text)
    kept = magnitude_mask(weight, pattern, 0.6)
    result = shrink_doomed_groups(weight, pattern, sparsity=0.6, strength=0.05)
    assert torch.equal(result[kept], weight[kept])
    assert (result[~kept].abs() < weight[~kept].abs()).all()


def test_the_threshold_grows_with_the_root_of_the_group_size() -> None:
    part, weight = part_of("filter"), torch.full((2, 9, 1, 1), 0.5)
    weight[0] = 1.0
    result = shrink_doomed_groups(weight, parse_pattern("filter"), sparsity=0.5, strength=0.1)
    shrunk_by = group_norms(weight, part) - group_norms(result, part)
    assert group_sizes((2, 9, 1, 1), part).flatten().tolist() == [9.0, 9.0]
    assert shrunk_by.flatten().tolist() == pytest.approx([0.0, 0.3], abs=1e-6)


def test_enough_steps_end_at_the_plan_and_never_beyond() -> None:
    weight, pattern = random_weight(16, 4, 3, 3), parse_pattern("filter+shape")
    wanted = magnitude_mask(weight, pattern, 0.75)
    for _ in range(400):
        weight = shrink_doomed_groups(weight, pattern, sparsity=0.75, strength=0.01)
    assert torch.equal(weight != 0, wanted)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unstructured", []),
        ("2:4", []),
        ("dense", []),
        ("filter+shape", ["filter", "shape"]),
        ("channel+2:4", ["channel"]),
    ],
)
def test_structured_parts_are_all_but_unstructured_and_nm(text: str, expected: list[str]) -> None:
    assert [part.name for part in structured_parts(parse_pattern(text))] == expected
