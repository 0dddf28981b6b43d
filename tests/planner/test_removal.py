"""Removal of weights against brute force on tiny layers, and its error against outputs of real layers."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.errors import UnsupportedError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import BlockPart, parse_pattern
from sparseplan.kernels.weight_view import weight_view
from sparseplan.planner import removal
from sparseplan.planner.column_blocks import cut_of
from sparseplan.planner.layer_gram import layer_grams
from sparseplan.planner.removal import PrunedLayer, remove_weights

PATTERNS = (
    *("unstructured", "block:4x1", "block:2x2", "block:3x2", "shape", "filter", "channel", "filter2d"),
    *("2:4", "1:4", "2:1:3", "filter+shape", "channel+block:2x2", "filter+2:4"),
)


def random_layer(shape: tuple[int, int, int, int], groups: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight, and second moments of correlated inputs, float64."""
    generator = torch.Generator().manual_seed(seed)
    depth = math.prod(shape[1:])
    mix = torch.randn(groups, depth, depth, generator=generator, dtype=torch.float64)
    inputs = mix @ torch.randn(groups, depth, 4 * depth, generator=generator, dtype=torch.float64)
    return torch.randn(shape, generator=generator, dtype=torch.float64), inputs @ inputs.mT / (4 * depth)


def least_error(weight: Tensor, gram: Tensor, gone: Tensor) -> float:
    """The error of the best weights [K, D] without some columns of each row, by solving for each row."""
    total = 0.0
    rows = len(weight) // len(gram)
    for number, row in enumerate(weight):
        matrix, left = gram[number // rows], ~gone[number]
        change = torch.zeros_like(row)
        change[~left] = -row[~left]
        if left.any():
            solved = torch.linalg.solve(matrix[left][:, left], matrix[left] @ row)
            change[left] = solved - row[left]
        total += float(change @ matrix @ change)
    return total


def removed(weight: Tensor, gram: Tensor, pattern: str, count: int, total: int) -> PrunedLayer:
    (found,) = remove_weights(weight, gram, parse_pattern(pattern), [count / total], damping_frac=0.0)
    return found


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "pattern", ["unstructured", "block:2x1", "block:2x2", "shape", "filter", "channel", "filter2d"]
)
def test_the_best_block_goes_first(pattern: str, groups: int) -> None:
    shape = (4, 4, 1, 2)
    weight, gram = random_layer(shape, groups)
    (part,) = parse_pattern(pattern).parts
    assert isinstance(part, BlockPart)
    cut = cut_of(part, shape)
    single = torch.eye(cut.bands * len(cut.blocks), dtype=torch.bool).reshape(-1, cut.bands, len(cut.blocks))
    errors = [least_error(weight.flatten(1), gram, cut.spread(each)) for each in single]
    found = removed(weight, gram, pattern, 1, len(single))
    assert float(found.error.sum()) == pytest.approx(min(errors))
    best = cut.spread(single[errors.index(min(errors))]).reshape(shape)
    assert torch.equal(~found.mask, best)
    # The second goes greedily: best beside the first, and never better than the best pair of all.
    second = removed(weight, gram, pattern, 2, len(single))
    pairs = {
        pair: least_error(weight.flatten(1), gram, cut.spread(single[pair[0]] | single[pair[1]]))
        for pair in combinations(range(len(single)), 2)
    }
    first = errors.index(min(errors))
    assert float(second.error.sum()) == pytest.approx(min(error for pair, error in pairs.items() if first in pair))
    assert min(pairs.values()) <= float(second.error.sum()) * (1 + 1e-9)


def test_the_score_is_the_rise_of_the_error() -> None:
    weight, gram = random_layer((6, 3, 1, 2), groups=2)
    error = [0.0, *(float(removed(weight, gram, "unstructured", count, 36).error.sum()) for count in (1, 2))]
    assert 0.0 < error[1] <= error[2]
    inverse = torch.linalg.inv(gram).diagonal(dim1=1, dim2=2).repeat_interleave(3, dim=0)
    assert error[1] == pytest.approx(float((weight.flatten(1).square() / inverse).min()))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("shape", "groups"), [((6, 5, 2, 2), 1), ((8, 8, 1, 1), 2), ((6, 1, 3, 3), 6)])
def test_masks_have_the_pattern_and_the_sparsity(pattern: str, shape: tuple[int, int, int, int], groups: int) -> None:
    weight, gram = random_layer(shape, groups)
    parsed = parse_pattern(pattern)
    levels = (parsed.fixed_sparsity,) if parsed.fixed_sparsity is not None else (0.5, 0.75, 0.9)
    for level, found in zip(levels, remove_weights(weight, gram, parsed, levels), strict=True):
        assert found.sparsity == level
        assert bool((found.weight[~found.mask] == 0).all())
        # A mask of the pattern is its own magnitude mask; where one part's sizes follow from those of another, it
        # need only keep about as many.
        again = magnitude_mask(found.mask.double() + 1e-3 * torch.rand(shape), parsed, level)
        if len(parsed.parts) == 1:
            assert torch.equal(again, found.mask)
        else:
            assert abs(int(again.sum()) - int(found.mask.sum())) <= 0.35 * weight.numel()
        refitted = least_error(weight.flatten(1), gram, ~found.mask.flatten(1))
        assert refitted <= float(found.error.sum()) * (1 + 1e-9) + 1e-12
        assert float(found.error.sum()) <= 1.2 * refitted + 1e-12  # the damping pulls the fit aside


@pytest.mark.parametrize("pattern", ["unstructured", "block:4x1", "shape", "2:4", "channel"])
def test_it_beats_magnitude_at_the_same_sparsity(pattern: str) -> None:
    weight, gram = random_layer((16, 16, 1, 1), seed=1)
    (found,) = remove_weights(weight, gram, parse_pattern(pattern), [0.5])
    mask = magnitude_mask(weight, parse_pattern(pattern), 0.5)
    masked = ((weight * ~mask).flatten(1) @ gram[0] * (weight * ~mask).flatten(1)).sum()
    refitted = least_error(weight.flatten(1), gram, ~mask.flatten(1))
    assert float(found.error.sum()) < refitted < float(masked)


@pytest.mark.parametrize("pattern", ["unstructured", "block:4x1", "block:4x4", "2:4"])
def test_large_layers_share_an_inverse(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worse masks than the exact way finds, but better ones than by magnitude, and the best weights for them."""
    weight, gram = random_layer((32, 48, 1, 1), seed=2)
    (exact,) = remove_weights(weight, gram, parse_pattern(pattern), [0.5])
    monkeypatch.setattr(removal, "EXACT_FLOP", 0.0)
    (shared,) = remove_weights(weight, gram, parse_pattern(pattern), [0.5])
    rivals = [magnitude_mask(weight, parse_pattern(pattern), 0.5), exact.mask]
    by_magnitude, best = (least_error(weight.flatten(1), gram, ~mask.flatten(1)) for mask in rivals)
    assert best < float(shared.error.sum()) < by_magnitude
    own = least_error(weight.flatten(1), gram, ~shared.mask.flatten(1))
    assert own <= float(shared.error.sum()) < 1.01 * own


class Tokens(nn.Module):
    """A linear layer over a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def conv(*, groups: int = 1, **options: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, groups=groups, **options))


@pytest.mark.parametrize(
    ("model", "name", "shape"),
    [
        (conv(padding=1), "0", (4, 6, 5)),
        (conv(groups=2, stride=2), "0", (4, 7, 7)),
        (conv(groups=4, padding=2, dilation=2), "0", (4, 6, 6)),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding="same", groups=4)), "0", (4, 6, 6)),
        (Tokens(), "layer", (5, 6)),
        (Tokens(), "layer", (6,)),
    ],
)
@torch.no_grad()
def test_the_error_is_that_of_the_output(model: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    images = torch.randn(40, *shape)
    ((found_name, gram),) = layer_grams(model, [name], images)
    assert found_name == name
    weight = weight_view(model.get_submodule(name))
    before = model(images)
    for pattern in ("unstructured", "filter"):
        (found,) = remove_weights(weight, gram.double(), parse_pattern(pattern), [0.5])
        kept = weight.clone()
        weight.copy_(found.weight)
        change = model(images) - before
        weight.copy_(kept)
        by_channel = change.square().movedim(1 if weight.shape[2] > 1 else -1, 0).flatten(1).sum(dim=1) / len(images)
        torch.testing.assert_close(found.error.float(), by_channel, rtol=1e-3, atol=1e-5)


def test_several_passes_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    images = torch.randn(8, 3, 6, 6)
    once = dict(layer_grams(model, ["0", "1"], images))
    monkeypatch.setattr("sparseplan.planner.layer_gram.MOST_BYTES", 1)
    for name, gram in layer_grams(model, ["0", "1"], images):
        torch.testing.assert_close(gram, once[name])


def test_layers_without_input_and_activation_patterns() -> None:
    weight = torch.randn(4, 4, 1, 1)
    (found,) = remove_weights(weight, torch.zeros(1, 4, 4), parse_pattern("unstructured"), [0.5])
    assert int(found.mask.sum()) == 8
    assert float(found.error.sum()) == 0.0
    with pytest.raises(UnsupportedError, match="sas:1:2"):
        list(remove_weights(weight, torch.eye(4)[None], parse_pattern("sas:1:2"), [0.5]))
