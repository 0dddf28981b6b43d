"""Sparsities lie on the grid of their pattern, and lead back to the mask that they stand for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.planner.levels import SPARSITY_LEVELS, levels_of


def test_few_filters_allow_few_levels() -> None:
    assert levels_of(parse_pattern("filter"), (4, 8, 3, 3)) == (0.25, 0.5, 0.75)
    assert levels_of(parse_pattern("filter"), (1, 8, 3, 3)) == ()


def test_n_of_m_has_its_own() -> None:
    assert levels_of(parse_pattern("2:4"), (8, 8, 3, 3)) == (0.5,)
    assert levels_of(parse_pattern("1:4"), (8, 8, 3, 3)) == (0.75,)
    assert min(levels_of(parse_pattern("filter+2:4"), (8, 8, 3, 3))) == 0.5


def test_large_layers_get_every_level() -> None:
    assert levels_of(parse_pattern("unstructured"), (100, 100, 1, 1)) == SPARSITY_LEVELS


@settings(max_examples=40, deadline=None)
@given(
    pattern=st.sampled_from(["unstructured", "filter", "channel", "shape", "filter+shape", "block:2x1"]),
    shape=st.tuples(st.sampled_from([2, 6, 16]), st.sampled_from([2, 4, 10]), st.just(3), st.just(3)),
)
def test_a_level_is_the_share_of_zeros_of_its_mask(pattern: str, shape: tuple[int, int, int, int]) -> None:
    parsed = parse_pattern(pattern)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for level in levels_of(parsed, shape):
        removed_frac = float((~magnitude_mask(weight, parsed, level)).float().mean())
        # Two parts round one after the other, so their product may be off by a group of each.
        assert removed_frac == pytest.approx(level, abs=1e-6 if len(parsed.parts) == 1 else 1.0 / shape[0])
