"""Groups, their norms and masks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.groups import expand_groups, free_density, grid_shape, group_norms, group_sizes, magnitude_mask
from sparseplan.kernels.pattern import BlockPart, parse_pattern

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))
BLOCK_PATTERNS = st.sampled_from(["unstructured", "block:2x3", "block:4x1", "shape", "filter", "channel", "filter2d"])
SPARSITIES = st.floats(0.0, 1.0)


def _weight(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _block_part(text: str) -> BlockPart:
    (part,) = parse_pattern(text).parts
    assert isinstance(part, BlockPart)
    return part


def test_norms_of_blocks_with_tails_by_hand() -> None:
    weight = torch.arange(1.0, 7.0).reshape(3, 2, 1, 1)
    norms = group_norms(weight, _block_part("block:2x1"))
    expected = torch.tensor([[math.hypot(1, 3), math.hypot(2, 4)], [5.0, 6.0]])
    torch.testing.assert_close(norms[:, :, 0, 0], expected)
    assert group_sizes((3, 2, 1, 1), _block_part("block:2x1"))[:, :, 0, 0].tolist() == [[2, 2], [1, 1]]


@settings(deadline=None)
@given(shape=SHAPES, pattern=BLOCK_PATTERNS)
def test_groups_partition_the_weight(shape: tuple[int, ...], pattern: str) -> None:
    part, weight = _block_part(pattern), _weight(shape)
    norms = group_norms(weight, part)
    assert norms.shape == grid_shape(shape, part)
    torch.testing.assert_close(norms.square().sum(), weight.square().sum())
    assert group_sizes(shape, part).sum() == weight.numel()
    numbers = torch.arange(norms.numel()).view(norms.shape)
    spread = expand_groups(numbers, shape, part)
    assert spread.shape == shape
    assert torch.equal(spread.flatten().bincount(), group_sizes(shape, part).flatten().long())


@settings(deadline=None)
@given(shape=SHAPES, pattern=BLOCK_PATTERNS, sparsity=SPARSITIES)
def test_mask_keeps_the_count_of_whole_groups(shape: tuple[int, ...], pattern: str, sparsity: float) -> None:
    part = _block_part(pattern)
    mask = magnitude_mask(_weight(shape), parse_pattern(pattern), sparsity)
    sizes = group_sizes(shape, part)
    kept = group_norms(mask.float(), part).square().round()
    assert bool(((kept == 0) | (kept == sizes)).all())
    assert int((kept > 0).sum()) == max(1, round((1.0 - sparsity) * sizes.numel()))


@settings(deadline=None)
@given(shape=SHAPES, n=st.integers(1, 3), more=st.integers(1, 3))
def test_nm_keeps_the_largest_n_of_each_m(shape: tuple[int, ...], n: int, more: int) -> None:
    m = n + more
    weight = _weight(shape)
    mask = magnitude_mask(weight, parse_pattern(f"{n}:{m}"), 0.0)
    for start in range(0, shape[1], m):
        group, kept = weight[:, start : start + m].abs(), mask[:, start : start + m]
        assert bool((kept.sum(dim=1) == min(n, group.shape[1])).all())
        weakest_kept = torch.where(kept, group, math.inf).amin(dim=1)
        strongest_lost = torch.where(kept, -1.0, group).amax(dim=1)
        assert bool((weakest_kept >= strongest_lost).all())


@settings(deadline=None)
@given(shape=SHAPES, n=st.integers(1, 2), more=st.integers(1, 4), v=st.integers(2, 5))
def test_outputs_that_share_columns_keep_the_strongest(shape: tuple[int, ...], n: int, more: int, v: int) -> None:
    m = 2 * n + more
    weight = _weight(shape)
    mask = magnitude_mask(weight, parse_pattern(f"{v}:{n}:{m}"), 0.0)
    for top in range(0, shape[0], v):
        for start in range(0, shape[1], m):
            group, kept = (each[top : top + v, start : start + m] for each in (weight, mask))
            assert bool((kept.sum(dim=1) == min(n, group.shape[1])).all())
            columns = kept.any(dim=0)
            assert int(columns.sum(dim=0).amax()) <= 2 * n
            # Nothing that is left out of the columns that all use would have made a stronger one.
            strongest = group.square().sum(dim=0).topk(min(2 * n, group.shape[1]), dim=0).values.amin(dim=0)
            assert bool((group.square().sum(dim=0) >= strongest * (1 - 1e-5))[columns.nonzero(as_tuple=True)].all())


def test_strongest_groups_survive() -> None:
    weight = torch.ones(4, 3, 2, 2) * torch.tensor([1.0, 4.0, 2.0, 3.0]).view(4, 1, 1, 1)
    mask = magnitude_mask(weight, parse_pattern("filter"), 0.5)
    assert mask.all(dim=(1, 2, 3)).tolist() == [False, True, False, True]


def test_a_small_block_at_the_end_is_not_weaker_for_its_size() -> None:
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.3]).view(5, 1, 1, 1)
    mask = magnitude_mask(weight, parse_pattern("block:2x1"), 2.0 / 3.0)
    assert mask.flatten().tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    "pattern", ["filter+shape", "filter+channel", "filter+unstructured", "channel+block:4x4", "filter+2:4"]
)
def test_parts_together_reach_the_sparsity(pattern: str) -> None:
    mask = magnitude_mask(_weight((64, 64, 3, 3)), parse_pattern(pattern), 0.75)
    assert 1.0 - mask.float().mean().item() == pytest.approx(0.75, abs=0.02)


def test_a_later_part_skips_in_what_is_left() -> None:
    weight = _weight((16, 16, 1, 1))
    filters = magnitude_mask(weight, parse_pattern("filter"), 0.5)
    both = magnitude_mask(weight, parse_pattern("filter+unstructured"), 0.75)
    assert bool((filters | ~both).all())
    assert int(both.sum()) == 64


def test_free_density_splits_evenly() -> None:
    assert free_density(parse_pattern("filter+shape"), 0.75) == pytest.approx(0.5)
    assert free_density(parse_pattern("filter+2:4"), 0.75) == pytest.approx(0.5)
    assert free_density(parse_pattern("2:4"), 0.5) == 1.0


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, math.nan])
def test_sparsity_outside_its_range(sparsity: float) -> None:
    with pytest.raises(InputError, match="sparsity must lie in"):
        magnitude_mask(_weight((2, 2, 1, 1)), parse_pattern("filter"), sparsity)


def test_mask_needs_four_axes() -> None:
    with pytest.raises(InputError, match=r"view a linear as \[K, C, 1, 1\]"):
        magnitude_mask(_weight((2, 2)), parse_pattern("filter"), 0.5)


def test_sas_has_no_weight_mask() -> None:
    with pytest.raises(UnsupportedError, match="sas:1:2"):
        magnitude_mask(_weight((2, 2, 1, 1)), parse_pattern("sas:1:2"), 0.5)
