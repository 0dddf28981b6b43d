from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.trainer.assignment import LayerSparsity
from sparseplan.trainer.masks import hold_gradients, hold_optimizer, masked_layers, update_masks


def assign(name: str, pattern: str, sparsity: float) -> LayerSparsity:
    return LayerSparsity(name=name, pattern=parse_pattern(pattern), sparsity=sparsity)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 4, 16))


PATTERNS = [
    ("unstructured", 0.9),
    ("filter", 0.5),
    ("channel", 0.25),
    ("filter+shape", 0.75),
    ("2:4", 0.5),
    ("block:16x1", 0.6),
    ("unstructured", 1.0),
]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS)
def test_masked_weights_stay_zero_through_momentum_and_weight_decay(
    pattern: str, sparsity: float, memory_format: torch.memory_format
) -> None:
    net = small_net().to(memory_format=memory_format)
    layers = masked_layers(net, (assign("0", pattern, sparsity), assign("4", pattern, sparsity)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    for step in range(12):
        optimizer.zero_grad()
        net(torch.randn(4, 8, 4, 4)).square().mean().backward()
        hold_gradients(layers)
        optimizer.step()
        if step == 3:
            update_masks(layers, done_frac=1.0)
            hold_optimizer(layers, optimizer)
            masks = [layer.mask.clone() for layer in layers]
        if step >= 3:
            for layer, mask in zip(layers, masks, strict=True):
                assert (layer.weight[mask == 0] == 0).all()
                assert (optimizer.state[layer.weight]["momentum_buffer"][mask == 0] == 0).all()
                assert (layer.weight[mask == 1] != 0).all()
                assert torch.equal(layer.mask, mask)


@pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS)
def test_the_mask_is_the_magnitude_mask_of_the_weights(pattern: str, sparsity: float) -> None:
    net = small_net()
    before = net[0].weight.detach().clone()
    (layer,) = masked_layers(net, (assign("0", pattern, sparsity),))
    update_masks((layer,), done_frac=1.0)
    expected = magnitude_mask(before, parse_pattern(pattern), sparsity)
    assert torch.equal(layer.weight != 0, expected)
    assert layer.zero_frac == pytest.approx(float((~expected).double().mean()))
    assert torch.equal(layer.weight.detach()[expected], before[expected])


def test_sparsity_grows_by_the_cubic_schedule() -> None:
    net = small_net()
    (layer,) = masked_layers(net, (assign("0", "unstructured", 0.8),))
    seen = []
    for done_frac in (0.25, 0.5, 0.75, 1.0):
        update_masks((layer,), done_frac=done_frac)
        seen.append(layer.zero_frac)
    assert seen == pytest.approx([0.8 * (1 - 0.75**3), 0.7, 0.8 * (1 - 0.25**3), 0.8], abs=1e-3)


def test_a_group_that_the_lasso_has_emptied_is_held_before_its_turn() -> None:
    net = small_net()
    net[0].weight.data[3] *= 1e-4
    (layer,) = masked_layers(net, (assign("0", "filter", 0.5),))
    update_masks((layer,), done_frac=0.01, shrink={"0": 1e-2})
    assert layer.mask.sum(dim=(1, 2, 3)).tolist() == [0.0 if filter_ == 3 else 72.0 for filter_ in range(16)]


def test_without_lasso_survivors_are_untouched() -> None:
    net = small_net()
    before = net[0].weight.detach().clone()
    (layer,) = masked_layers(net, (assign("0", "filter", 0.5),))
    update_masks((layer,), done_frac=0.0)
    assert torch.equal(layer.weight, before)


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(InputError, match=r"layer 'body\.7'.*model that the plan was made for"):
        masked_layers(small_net(), (assign("body.7", "filter", 0.5),))


def test_a_layer_without_a_matrix_is_refused() -> None:
    with pytest.raises(InputError, match=r"'1', which is a BatchNorm2d"):
        masked_layers(small_net(), (assign("1", "filter", 0.5),))


def test_patterns_of_activations_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="sas:1:2"):
        masked_layers(small_net(), (assign("0", "sas:1:2", 0.5),))


def test_a_sparsity_out_of_range_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"1\.5"):
        masked_layers(small_net(), (assign("0", "filter", 1.5),))
