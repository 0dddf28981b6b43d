"""The families in any loop: SR-STE against its formula, the steered penalty, SSL's own, and what `finish` leaves."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.groups import group_norms, group_sizes, magnitude_mask
from sparseplan.kernels.pattern import BlockPart, parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.schema import Candidate, LayerPlan, Plan
from sparseplan.trainer import regulariser as module
from sparseplan.trainer.assignment import Assignment, LayerSparsity
from sparseplan.trainer.group_lasso import ssl_subgradient
from sparseplan.trainer.marginal_time import time_fracs
from sparseplan.trainer.regulariser import PruneOptions, Regulariser, prepare
from sparseplan.trainer.steer import GAIN, RANGE, Emergence, steer


def assign(**layers: tuple[str, float]) -> Assignment:
    return tuple(
        LayerSparsity(name=name, pattern=parse_pattern(pattern), sparsity=sparsity)
        for name, (pattern, sparsity) in layers.items()
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, count: int, after: Callable[[], None] = lambda: None
) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        optimizer.zero_grad()
        x = torch.randn(4, 8, 5, 5, generator=generator)
        model(x).square().mean().backward()
        optimizer.step()
        after()


def test_the_sr_ste_step_is_its_formula() -> None:
    """W <- W - lr * (g(E * W) + decay * (1 - E) * W), with the mask made anew from W."""
    model = net()
    rate, decay, pattern = 0.1, 0.3, parse_pattern("2:4")
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    options = PruneOptions(prune_steps=33, sr_ste=decay)
    regulariser = Regulariser(model, assign(fc=("2:4", 0.5)), optimizer, options=options)
    dense = model.fc.weight.detach().clone()
    regulariser.start()
    mask = magnitude_mask(dense[:, :, None, None], pattern, 0.5).reshape(dense.shape).float()
    changed = 0
    for step in range(1, 34):
        assert torch.equal(model.fc.weight != 0, mask != 0)
        optimizer.zero_grad()
        model(torch.randn(4, 8, 5, 5)).square().mean().backward()
        gradient = model.fc.weight.grad.clone()
        assert gradient[mask == 0].abs().sum() > 0
        dense = dense - rate * (gradient + decay * (1 - mask) * dense)
        optimizer.step()
        regulariser.step()
        if step == 33:
            # The mask of the end is made of all weights, once more.
            mask = magnitude_mask(dense[:, :, None, None], pattern, 0.5).reshape(dense.shape).float()
        elif step % module.NM_EVERY == 0:
            before = mask
            mask = magnitude_mask(dense[:, :, None, None], pattern, 0.5).reshape(dense.shape).float()
            changed += int((before != mask).sum())
        torch.testing.assert_close(model.fc.weight.detach(), dense * mask, atol=1e-6, rtol=1e-5)
        if step < 33:
            hidden = regulariser.tensors()[1]["fc"]
            torch.testing.assert_close(hidden, dense * (1 - mask), atol=1e-6, rtol=1e-5)
    assert changed > 0
    assert not regulariser.pruning


def test_asp_masks_once_from_the_dense_weights() -> None:
    model = net()
    wanted = magnitude_mask(model.fc.weight.detach()[:, :, None, None], parse_pattern("1:4"), 0.75)[:, :, 0, 0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    regulariser = Regulariser(model, assign(fc=("1:4", 0.75)), optimizer, options=PruneOptions(prune_steps=0, nm="asp"))
    regulariser.start()
    steps(model, optimizer, 20, regulariser.step)
    assert torch.equal(model.fc.weight != 0, wanted)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
@pytest.mark.parametrize("nm", ["sr-ste", "asp"])
def test_a_loop_of_ones_own_ends_at_the_plan_with_any_optimiser(make: type[torch.optim.Optimizer], nm: str) -> None:
    model = net()
    optimizer = make(model.parameters(), lr=1e-3, weight_decay=0.1)
    assignment = assign(conv=("filter+shape", 0.75), fc=("2:4", 0.5))
    regulariser = Regulariser(model, assignment, optimizer, options=PruneOptions(prune_steps=70, nm=nm))
    regulariser.start()
    steps(model, optimizer, 80, regulariser.step)
    regulariser.finish()
    assert not regulariser.pruning
    for layer in regulariser.layers:
        assert layer.zero_frac == pytest.approx(layer.target.sparsity, abs=1e-6)
    zeros = {name: (parameter == 0).clone() for name, parameter in model.named_parameters()}
    steps(model, optimizer, 5, regulariser.step)
    for name, gone in zeros.items():
        assert (model.get_parameter(name)[gone] == 0).all()


def test_finishing_early_makes_the_masks_of_the_plan() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    assignment = assign(conv=("unstructured", 0.9), fc=("2:4", 0.5))
    regulariser = Regulariser(model, assignment, optimizer, options=PruneOptions(prune_steps=1000))
    regulariser.start()
    steps(model, optimizer, 10, regulariser.step)
    assert regulariser.layers[0].zero_frac == 0.0
    regulariser.finish()
    assert [layer.zero_frac for layer in regulariser.layers] == pytest.approx([0.9, 0.5], abs=1e-3)


def test_the_controller_strengthens_what_lags_and_weakens_what_hurries() -> None:
    lagging = Emergence(emerged_frac=0.3, before_frac=0.3, due_frac=0.4)
    ahead = Emergence(emerged_frac=0.6, before_frac=0.3, due_frac=0.4)
    on_time = Emergence(emerged_frac=0.4, before_frac=0.3, due_frac=0.4)
    assert steer(1.0, lagging, first=1.0) == pytest.approx(math.exp(GAIN))
    assert steer(1.0, ahead, first=1.0) == pytest.approx(math.exp(-GAIN))
    assert steer(1.0, on_time, first=1.0) == 1.0
    strength = 1.0
    for _ in range(1000):
        strength = steer(strength, lagging, first=1.0)
    assert strength == RANGE


def test_steering_finds_the_strength_of_a_simple_plant() -> None:
    """Groups that vanish in proportion to the strength, up to all that is due: it settles where that is what is due."""
    strength, needed, history = 1e-3, 0.2, []
    for update in range(1, 101):
        before, due = (update - 1) / 100, update / 100
        emerged = before + (due - before) * strength / needed
        strength = steer(strength, Emergence(emerged_frac=emerged, before_frac=before, due_frac=due), first=1e-3)
        history.append(strength)
    assert history[-20:] == pytest.approx([needed] * 20, rel=0.02)


def test_the_steered_penalty_makes_the_zeros_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far too weak at first, it is steered until what is due has vanished before the cut, and not much more has."""
    lags: list[float] = []

    def watched(strength: float, seen: Emergence, *, first: float) -> float:
        lags.append(seen.lag)
        return steer(strength, seen, first=first)

    monkeypatch.setattr(module, "steer", watched)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    options = PruneOptions(prune_steps=1280, group_lasso=1e-4)
    regulariser = Regulariser(model, assign(conv=("block:4x1", 0.75)), optimizer, options=options)
    regulariser.start()
    steps(model, optimizer, 1280, regulariser.step)
    assert regulariser.layers[0].zero_frac == 0.75
    assert lags[0] == 1.0
    assert abs(sum(lags[15:]) / len(lags[15:])) < 0.3


@pytest.mark.parametrize("text", ["filter", "shape", "filter+shape", "block:4x2"])
def test_the_sub_gradient_is_that_of_the_penalty(text: str) -> None:
    weight = torch.randn(8, 6, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight.requires_grad_()
    pattern = parse_pattern(text)
    penalty = torch.zeros((), dtype=torch.float64)
    for part in pattern.parts:
        assert isinstance(part, BlockPart)
        penalty = penalty + (group_sizes((8, 6, 3, 3), part).double().sqrt() * group_norms(weight, part)).sum()
    (expected,) = torch.autograd.grad(0.3 * penalty, weight)
    torch.testing.assert_close(ssl_subgradient(weight.detach(), pattern, strength=0.3), expected)


def test_ssls_own_form_thins_by_its_threshold_and_ends_at_the_plan() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    options = PruneOptions(prune_steps=300, group_lasso=0.05, structured="subgradient")
    regulariser = Regulariser(model, assign(conv=("filter", 0.5), fc=("unstructured", 0.5)), optimizer, options=options)
    regulariser.start()
    steps(model, optimizer, 299, regulariser.step)
    magnitudes = model.conv.weight.detach().abs()
    assert regulariser.pruning
    assert bool((magnitudes == 0).any())
    assert not bool(((magnitudes > 0) & (magnitudes < 1e-4)).any())
    assert regulariser.layers[1].zero_frac > 0.4
    steps(model, optimizer, 1, regulariser.step)
    assert [layer.zero_frac for layer in regulariser.layers] == pytest.approx([0.5, 0.5], abs=0.3)
    filters = model.conv.weight.detach().flatten(1).any(dim=1)
    assert int(filters.sum()) <= 8


def test_an_optimiser_of_another_model_is_refused() -> None:
    optimizer = torch.optim.SGD(net().parameters(), lr=0.1)
    with pytest.raises(InputError, match="optimiser does not hold the weight of planned layer 'conv'"):
        Regulariser(net(), assign(conv=("filter", 0.5)), optimizer, options=PruneOptions(prune_steps=1))


def interval(time_s: float) -> Interval:
    return Interval(median=time_s, low=time_s, high=time_s)


def layer_plan(name: str, problem: Problem, pattern: str, sparsity: float, *, saved_s: float) -> LayerPlan:
    dense = Candidate(
        pattern="dense",
        sparsity=0.0,
        kernel="k",
        dtype="float32",
        time_s=interval(1.0),
        loss_increase=0,
        extrapolated=0,
    )
    chosen = dense.model_copy(update={"pattern": pattern, "sparsity": sparsity, "time_s": interval(1.0 - saved_s)})
    return LayerPlan.model_construct(name=name, full_problem=problem, chosen=chosen, dense=dense, calls=1)


@pytest.fixture
def plan() -> Plan:
    conv = Problem(op="conv2d", n=4, c_in=8, c_out=16, h_in=5, w_in=5, kernel=(3, 3), padding=(1, 1))
    layers = (
        layer_plan("conv", conv, "filter", 0.5, saved_s=0.4),
        layer_plan("fc", Problem(op="linear", n=4, c_in=16, c_out=8), "shape", 0.25, saved_s=0.1),
    )
    return Plan.model_construct(model="zoo:net", layers=layers, widths=())


def test_prepare_takes_a_plan_and_refuses_another_model(plan: Plan) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    regulariser = prepare(model, plan, optimizer, options=PruneOptions(prune_steps=64))
    steps(model, optimizer, 64, regulariser.step)
    assert [layer.zero_frac for layer in regulariser.layers] == pytest.approx([0.5, 0.25])
    with pytest.raises(InputError, match="has a layer 'conv', the model has none"):
        prepare(nn.Sequential(nn.Linear(3, 3)), plan, optimizer, options=PruneOptions(prune_steps=1))


def test_groups_weigh_what_the_machine_gains_by_them(plan: Plan) -> None:
    """0.4 s by 8 filters are 0.05 s a group; 0.1 s by 4 columns 0.025 s."""
    assert time_fracs(plan) == {"conv": pytest.approx(4 / 3), "fc": pytest.approx(2 / 3)}
