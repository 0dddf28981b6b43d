"""Networks under SAS begin as the network that they were made from, and learn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import reference
from sparseplan.model_spec import load_model
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.evaluate import evaluate
from sparseplan.trainer.learner import Learner
from sparseplan.trainer.sas import convert
from sparseplan.trainer.sas_layers import SasConv1d, SasConv2d, SasLinear
from sparseplan.trainer.schema import TrainConfig

MakeNet = Callable[..., nn.Module]


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """Weights and statistics as after training: nothing is zero, one or symmetric any more."""
    torch.manual_seed(0)
    model = make()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def sas_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, SasConv1d | SasConv2d | SasLinear)]


@torch.no_grad()
def test_a_residual_network_keeps_its_very_outputs() -> None:
    """ResNet-20 with in-place ReLUs and shortcuts, exactly, and the original is left alone."""
    model = trained(lambda: load_model("zoo:resnet20"))
    x = torch.randn(3, 3, 32, 32)
    before = model(x)
    network = convert(model, 2)
    assert torch.equal(network(x), before)
    assert torch.equal(model(x), before)
    assert model.layer1[0].relu1.inplace
    assert len(sas_names(network)) == 18
    assert type(network.get_submodule("conv1")) is nn.Conv2d
    relus = [name for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    assert not any("relu1" in name for name in relus)
    # The shortcut out of a block still gets its ReLU.
    assert "layer1.0.relu2" in relus


@pytest.mark.parametrize("m", [2, 4, 8])
@torch.no_grad()
def test_every_m_keeps_the_outputs(m: int) -> None:
    model = trained(lambda: load_model("zoo:resnet20")).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    network = convert(model, m)
    torch.testing.assert_close(network(x), model(x), atol=1e-10, rtol=1e-10)
    assert network.get_submodule("layer1.0.conv1").weight.shape == (16, m * 16, 3, 3)


class Many(nn.Module):
    """Each activation, Conv1d, grouped and strided convolutions, pooling between, a linear of more axes, functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 8, 3)
        self.relu6 = nn.ReLU6(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.conv1 = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2)
        self.gelu = nn.GELU()
        self.conv2 = nn.Conv1d(8, 6, 3, padding=1)
        self.fc1 = nn.Linear(6, 10)
        self.fc2 = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = 4 * self.conv0(x)
        y = self.pool(self.relu6(x))
        x = self.gelu(self.conv1(y).flatten(2))
        x = functional.relu(self.conv2(x), inplace=True).mean(2)
        x = functional.silu(self.fc1(x[:, None].expand(-1, 3, -1)))
        return self.fc2(x) + y.mean((1, 2, 3))[:, None, None]


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("learn_thresholds", [False, True])
@torch.no_grad()
def test_every_activation_has_its_rule(m: int, learn_thresholds: bool) -> None:
    model = trained(Many).double()
    x = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    network = convert(model, m, learn_thresholds=learn_thresholds).double()
    assert sas_names(network) == ["conv1", "conv2", "fc2"]
    kinds = [network.get_submodule(name).kind for name in sas_names(network)]
    assert kinds == ["relu6", "smooth", "smooth"]
    assert (model.conv0(x) * 4 > 6).any()
    torch.testing.assert_close(network(x), model(x), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("m", [2, 4])
@torch.no_grad()
def test_trained_layers_are_what_the_kernels_compute(m: int) -> None:
    """With any weights, not only those it starts from, a layer is the reference of its problem."""
    problem = Problem(op="conv2d", n=2, c_in=8, c_out=6, h_in=5, w_in=4, kernel=(3, 3), padding=(1, 1), groups=2)
    problem = problem.with_sparsity(f"sas:1:{m}", 0.0)
    layer = SasConv2d(nn.Conv2d(8, 6, 3, padding=1, groups=2), slots=m, kind="relu")
    layer.weight.normal_()
    x = torch.randn(problem.input_shape)
    expected = reference(problem, layer.weight, layer.bias, False, x)
    torch.testing.assert_close(layer(x).double(), expected.double(), atol=1e-4, rtol=1e-4)


def test_gradients_reach_both_slots_and_the_thresholds() -> None:
    layer = SasLinear(nn.Linear(6, 4), slots=2, kind="relu", threshold=True)
    x = torch.randn(16, 6)
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad.view(4, 6, 2).abs().sum((0, 1)) > 0).all()
    layer.weight.data.normal_()
    layer.zero_grad()
    layer(x).square().sum().backward()
    assert layer.threshold is not None
    assert layer.threshold.grad is not None
    assert (layer.threshold.grad != 0).all()


def test_only_the_named_layers_are_converted() -> None:
    model = trained(lambda: load_model("zoo:resnet20"))
    network = convert(model, 2, ["layer3.2.conv2"])
    assert sas_names(network) == ["layer3.2.conv2"]
    with pytest.raises(InputError, match=r"layer 'conv1' cannot be put under SAS.*those are layer1\.0\.conv1"):
        convert(model, 2, ["conv1"])
    with pytest.raises(UnsupportedError, match="SAS 1:3"):
        convert(model, 3)


def test_a_network_that_branches_on_values_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedError, match="cannot trace Branching"):
        convert(Branching(), 2)


def test_it_trains_from_where_the_relu_network_was(digits: DataSplits, make_net: MakeNet) -> None:
    model = make_net()
    config = TrainConfig(epochs=2, batch_size=64, learning_rate=0.05)
    dense = Learner(model, digits, assignment=(), config=config)
    for epoch in (1, 2):
        dense.run_epoch(epoch, report=lambda *_: None)
    network = convert(model, 2)
    before = evaluate(network, digits, digits.validation, batch_size=64)
    assert before == evaluate(model, digits, digits.validation, batch_size=64)
    learner = Learner(network, digits, assignment=(), config=config)
    for epoch in (1, 2):
        learner.run_epoch(epoch, report=lambda *_: None)
    assert evaluate(network, digits, digits.train, batch_size=64).loss < 0.8 * before.loss
