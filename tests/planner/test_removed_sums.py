"""What masks take away, at all sparsities at once, against the masks themselves."""

import pytest
import torch

from sparseplan.kernels.errors import UnsupportedError
from sparseplan.kernels.groups import magnitude_mask, magnitude_masks
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.planner import removed_sums as module
from sparseplan.planner.removed_sums import removed_sums

SPARSITIES = (0.0, 0.003, 0.25, 0.5, 0.62, 0.9, 0.99, 1.0)
PATTERNS = ("unstructured", "block:16x1", "block:4x3", "filter", "channel", "shape", "filter2d", "depth")
COMBINED = ("filter+shape", "channel+block:4x1", "2:4", "filter+2:4", "2:4+unstructured")
SHAPES = ((16, 12, 3, 3), (19, 7, 1, 1), (5, 3, 3, 1), (1, 1, 1, 1))


def case(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    weight[weight.abs() < 0.1] = 0.0  # ties
    return weight, torch.rand(shape, generator=generator)


@pytest.mark.parametrize("pattern", [*PATTERNS, *COMBINED])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_the_masks(pattern: str, shape: tuple[int, ...]) -> None:
    weight, values = case(shape)
    found = removed_sums(weight, values, parse_pattern(pattern), SPARSITIES)
    for sparsity, total in zip(SPARSITIES, found, strict=True):
        mask = magnitude_mask(weight, parse_pattern(pattern), sparsity)
        assert total == pytest.approx(float(values[~mask].double().sum()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("pattern", [*PATTERNS, *COMBINED])
def test_many_masks_are_those_made_one_by_one(pattern: str) -> None:
    weight, _ = case(SHAPES[0])
    masks = magnitude_masks(weight, parse_pattern(pattern), SPARSITIES)
    for sparsity, mask in zip(SPARSITIES, masks, strict=True):
        assert torch.equal(mask, magnitude_mask(weight, parse_pattern(pattern), sparsity))


def test_blocks_are_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments):  # type: ignore[no-untyped-def]
        calls.append(arguments)
        return ranked(*arguments)

    ranked = module.rank_blocks
    monkeypatch.setattr(module, "rank_blocks", counted)
    weight, values = case(SHAPES[0])
    removed_sums(weight, values, parse_pattern("unstructured"), SPARSITIES)
    assert len(calls) == 1


def test_patterns_of_activations_are_refused() -> None:
    weight, values = case(SHAPES[0])
    with pytest.raises(UnsupportedError, match="no weight mask"):
        removed_sums(weight, values, parse_pattern("sas:1:2"), (0.5,))
