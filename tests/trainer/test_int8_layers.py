"""Layers that learn their rounding: what they compute is what the reference of the kernels does, and zeros stay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.quantisation import dequantise, quantise
from sparseplan.kernels.reference_int8 import reference_int8
from sparseplan.kernels.sas import trace_whole_layers
from sparseplan.trainer.int8_layers import Int8Layer, observe_inputs, plain_layer, stored_weight, widen, with_int8


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def rounded(names: tuple[str, ...] = ("0", "3")) -> tuple[nn.Module, Tensor]:
    x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    model = with_int8(net(), names)
    observe_inputs(model, [x])
    return model, x


def test_a_layer_computes_what_the_reference_does_but_for_the_rounding_of_its_output() -> None:
    model, x = rounded()
    layer = model.get_submodule("0")
    assert isinstance(layer, Int8Layer)
    layer.get_parameter("weight").data[:, 1] = 0.0
    y = layer(x).detach()
    widen(layer.y_range, y)
    by = layer.quantisation()
    problem = Problem(op="conv2d", n=4, c_in=3, c_out=8, h_in=6, w_in=6, kernel=(3, 3), padding=(1, 1), dtype="int8")
    stored = quantise(x, by.x_scale, by.x_zero_point)
    right = reference_int8(
        problem, layer.get_parameter("weight").data, layer.get_parameter("bias").data, False, stored, quantisation=by
    )
    assert float((dequantise(right, by.y_scale, by.y_zero_point) - y).abs().max()) <= 0.501 * by.y_scale
    assert not (layer.rounded_weight()[:, 1] != 0).any()


def test_rounding_hardly_changes_the_outputs_and_gradients_pass_it() -> None:
    model, x = rounded()
    model(x).sum().backward()
    plain = net()
    plain(x).sum().backward()
    expected = plain(x).detach()
    assert 0.0 < float((model(x).detach() - expected).abs().max()) < 0.03 * float(expected.abs().max())
    gradient, known = (each.get_submodule("3").get_parameter("weight").grad for each in (model, plain))
    assert gradient is not None
    assert known is not None
    assert float((gradient - known).norm()) < 0.05 * float(known.norm())


def test_the_range_follows_what_training_brings_and_stays_in_evaluation() -> None:
    model, x = rounded()
    layer = model.get_submodule("0")
    assert isinstance(layer, Int8Layer)
    before = layer.x_range.clone()
    assert before.tolist() == pytest.approx([float(x.min()), float(x.max())])
    model(10.0 * x)
    assert torch.equal(layer.x_range, before)
    model.train()(10.0 * x)
    assert layer.x_range.tolist() == pytest.approx((1.09 * before).tolist())


def test_tracing_and_copying_take_them_whole_and_they_become_plain_again() -> None:
    model, x = rounded(("0",))
    traced = trace_whole_layers(copy.deepcopy(model))
    assert torch.equal(traced(x), model(x))
    plain = plain_layer(model.get_submodule("0"))
    assert type(plain) is nn.Conv2d
    assert torch.equal(plain(x), net().get_submodule("0")(x))
    assert set(plain.state_dict()) == {"weight", "bias"}


def test_stored_integers_are_those_of_the_rounded_weight() -> None:
    model, _ = rounded()
    layer = model.get_submodule("0")
    assert isinstance(layer, Int8Layer)
    layer.get_parameter("weight").data[3] = 0.0
    stored, scale = stored_weight(layer.get_parameter("weight"))
    assert int(stored.abs().max()) == 127
    torch.testing.assert_close(stored * scale.view(-1, 1, 1, 1), layer.rounded_weight().detach(), rtol=1e-6, atol=0.0)


def test_what_no_int8_kernel_can_have_is_refused() -> None:
    with pytest.raises(InputError, match="'1' is a ReLU; only plain Conv1d, Conv2d and Linear"):
        with_int8(net(), ["1"])
    layer = with_int8(net(), ["0"]).get_submodule("0")
    assert isinstance(layer, Int8Layer)
    with pytest.raises(InputError, match="nothing says in which range"):
        layer.quantisation()
    plain = net()
    assert with_int8(plain, []) is plain
