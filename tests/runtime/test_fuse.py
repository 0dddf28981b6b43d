"""Folding batch-norm and finding ReLUs must not change what a network computes."""

import pytest
import torch
from torch import Tensor, nn

from sparseplan.runtime.fuse import absorb_relu, absorb_residual, fuse, replace_module


class Branching(nn.Module):
    """A batch-norm that may be folded, one that may not (its input is used twice), and a shared convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.twice_bn = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        y = self.twice(x)
        y = torch.relu(self.twice_bn(y)) + y
        return self.relu(self.shared(torch.relu(self.shared(y))))


class ValueDependent(nn.Module):
    """Cannot be traced: its path depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else self.conv(-x)


def _with_statistics(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def test_folding_keeps_the_function() -> None:
    model = _with_statistics(Branching())
    x = torch.randn(2, 3, 9, 9)
    fused = fuse(model)
    torch.testing.assert_close(fused.model(x), model(x), rtol=1e-4, atol=1e-5)


def test_only_sole_consumers_are_folded() -> None:
    fused = fuse(_with_statistics(Branching()))
    targets = {str(node.target) for node in fused.model.graph.nodes}
    assert "bn" not in targets
    assert "twice_bn" in targets


def test_relu_is_found_behind_single_calls_only() -> None:
    fused = fuse(_with_statistics(Branching()))
    assert set(fused.calls) == {"conv", "twice"}
    assert absorb_relu(fused, "conv")
    assert not absorb_relu(fused, "twice")
    assert not absorb_relu(fused, "shared")


def test_the_original_model_is_untouched() -> None:
    model = Branching()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fuse(model)
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_untraceable_models_come_back_unfused() -> None:
    fused = fuse(ValueDependent())
    assert not fused.traced
    assert fused.calls == {}
    assert fused.model(torch.ones(1, 3, 5, 5)).shape == (1, 4, 3, 3)


@pytest.mark.parametrize("form", ["module", "function", "method", "functional"])
def test_every_spelling_of_relu_is_found(form: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            if form == "module":
                return self.act(y)
            if form == "function":
                return torch.relu(y)
            return y.relu() if form == "method" else nn.functional.relu(y)

    torch.manual_seed(0)
    fused = fuse(Net())
    x = torch.randn(1, 1, 5, 5)
    assert absorb_relu(fused, "conv")
    assert fused.model(x).min() < 0


class Block(nn.Module):
    """The end of a residual block, in every way that people write it."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.shortcut = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        z = self.shortcut(x)
        if self.form == "operator":
            y = y + z
        elif self.form == "in place":
            y += z
        elif self.form == "onto the shortcut":
            z += y
            y = z
        elif self.form == "method":
            y = z.add(y)
        elif self.form == "function":
            y = torch.add(y, z)
        elif self.form == "input changed meanwhile":
            y = y + self.shortcut(x.relu_())
        elif self.form == "broadcast":
            y = y + z.mean((2, 3), keepdim=True)
        elif self.form == "scaled":
            y = torch.add(y, z, alpha=2)
        elif self.form == "number":
            y = y + 1.0
        else:
            y = y + y.relu()
        return torch.relu(y)


class WithResidual(nn.Module):
    """A convolution that takes a residual, as kernels do."""

    def __init__(self, conv: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self.conv, self.relu = conv, relu

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self.conv(x) if residual is None else self.conv(x) + residual
        return y.relu() if self.relu else y


def _fused_block(form: str) -> tuple[nn.Module, bool, bool]:
    torch.manual_seed(0)
    fused = fuse(Block(form), torch.randn(2, 4, 5, 5))
    residual = absorb_residual(fused, "body")
    relu = absorb_relu(fused, "body")
    body = fused.model.get_submodule("body")
    assert isinstance(body, nn.Conv2d)
    replace_module(fused.model, "body", WithResidual(body, relu))
    return fused.model, residual, relu


@pytest.mark.parametrize("form", ["operator", "in place", "onto the shortcut", "method", "function"])
def test_residual_additions_and_the_relu_behind_are_taken_over(form: str) -> None:
    model, residual, relu = _fused_block(form)
    assert (residual, relu) == (True, True)
    x = torch.randn(2, 4, 5, 5)
    torch.manual_seed(0)
    torch.testing.assert_close(model(x.clone()), Block(form)(x.clone()))


@pytest.mark.parametrize("form", ["input changed meanwhile", "broadcast", "scaled", "number", "twice"])
def test_other_additions_stay_where_they_are(form: str) -> None:
    model, residual, _ = _fused_block(form)
    assert not residual
    x = torch.randn(2, 4, 5, 5)
    torch.manual_seed(0)
    torch.testing.assert_close(model(x.clone()), Block(form)(x.clone()))


def test_without_an_example_no_addition_is_known_to_be_one_of_equals() -> None:
    assert not absorb_residual(fuse(Block("operator")), "body")
