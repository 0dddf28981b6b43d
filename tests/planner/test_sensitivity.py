"""Estimated losses against measured ones on a small trained network."""

import copy

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.lowrank import low_rank, ranks_for
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.planner.calibration import Labelled, label, sample_losses
from sparseplan.planner.layer_weights import layer_weight, replaced
from sparseplan.planner.sensitivity import Calibration, Sensitivity, WeightChoice, estimate_sensitivity

LAYERS = ("stem", "wide", "grouped", "depthwise", "head")
CHOICES = tuple(
    WeightChoice(layer=layer, pattern=pattern, sparsity=sparsity)
    for layer in LAYERS
    for pattern in ("unstructured", "filter", "shape")
    for sparsity in (0.25, 0.5, 0.75, 0.9)
)


def measured_rise(model: nn.Module, choice: WeightChoice, data: Labelled) -> float:
    """Without any code of the estimate: put the mask into the weights and evaluate."""
    weight = layer_weight(model, choice.layer)
    mask = magnitude_mask(weight, parse_pattern(choice.pattern), choice.sparsity)
    before = float(sample_losses(model, data).mean())
    original = weight.clone()
    weight.mul_(mask)
    after = float(sample_losses(model, data).mean())
    weight.copy_(original)
    return after - before


@pytest.fixture(scope="module")
def calibrated(trained_net: nn.Module, digits: tuple[Tensor, Tensor]) -> Sensitivity:
    images, labels = digits
    calibration = Calibration(images=images[1500:1700], labels=labels[1500:1700])
    return estimate_sensitivity(trained_net, CHOICES, layers=LAYERS, calibration=calibration, budget_s=8.0)


def test_order_agrees_with_choices_that_were_not_measured(
    trained_net: nn.Module, digits: tuple[Tensor, Tensor], calibrated: Sensitivity
) -> None:
    images, labels = digits
    data = Labelled(images=images[1500:], labels=labels[1500:])
    unseen = [choice for choice in CHOICES if choice not in calibrated.measured]
    assert len(unseen) >= 30
    rises = [measured_rise(trained_net, choice, data) for choice in unseen]
    assert spearmanr([calibrated.loss[choice] for choice in unseen], rises).statistic > 0.6


def test_scale_is_that_of_measured_ablations(calibrated: Sensitivity) -> None:
    assert calibrated.source == "calibration"
    assert len(calibrated.measured) >= len(LAYERS)
    big = [choice for choice, rise in calibrated.measured.items() if rise > 0.05]
    assert big
    ratios = sorted(calibrated.loss[choice] / calibrated.measured[choice] for choice in big)
    assert 1 / 5 < ratios[len(ratios) // 2] < 5


def test_losses_grow_with_sparsity(calibrated: Sensitivity) -> None:
    for choice in CHOICES:
        for other in CHOICES:
            if (choice.layer, choice.pattern) == (other.layer, other.pattern) and choice.sparsity < other.sparsity:
                assert calibrated.loss[choice] <= calibrated.loss[other]
    assert all(loss >= 0.0 for loss in calibrated.loss.values())


def test_measured_entries_are_real_measurements(
    trained_net: nn.Module, digits: tuple[Tensor, Tensor], calibrated: Sensitivity
) -> None:
    images, labels = digits
    data = Labelled(images=images[1500:1700], labels=labels[1500:1700])
    choice, rise = max(calibrated.measured.items(), key=lambda item: item[1])
    assert rise == pytest.approx(measured_rise(trained_net, choice, data), rel=0.3)


def test_rounding_to_bfloat16_costs_far_less_than_pruning(calibrated: Sensitivity) -> None:
    for layer in LAYERS:
        worst = max(loss for choice, loss in calibrated.loss.items() if choice.layer == layer)
        assert 0.0 < calibrated.rounding[layer] < 0.01 * worst


def test_without_data_it_is_the_share_of_squared_weights(trained_net: nn.Module) -> None:
    found = estimate_sensitivity(trained_net, CHOICES, layers=LAYERS)
    assert found.source == "magnitude"
    choice = WeightChoice(layer="wide", pattern="filter", sparsity=0.5)
    weight = layer_weight(trained_net, "wide")
    mask = magnitude_mask(weight, parse_pattern("filter"), 0.5)
    assert found.loss[choice] == pytest.approx(float(weight[~mask].square().sum() / weight.square().sum()), rel=1e-5)


def test_low_rank_costs_what_it_changes(trained_net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    name = next(each for each, module in trained_net.named_modules() if isinstance(module, nn.Linear))
    choices = [WeightChoice(layer=name, pattern="lowrank", sparsity=sparsity) for sparsity in (0.3, 0.6, 0.9)]
    weight = layer_weight(trained_net, name)
    found = estimate_sensitivity(trained_net, choices, layers=[name]).loss
    for choice in choices:
        nearest = low_rank(weight, ranks_for(tuple(weight.shape), choice.sparsity))
        changed = (weight - nearest).square().sum() / weight.square().sum()
        assert found[choice] == pytest.approx(float(changed), rel=1e-3)
    measured = estimate_sensitivity(
        trained_net, choices, layers=[name], calibration=Calibration(images=digits[0], labels=digits[1]), budget_s=0.5
    )
    assert list(measured.loss.values()) == sorted(measured.loss[choice] for choice in choices)
    assert measured.measured


def test_the_model_is_left_as_it_was(trained_net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    model = copy.deepcopy(trained_net).train().requires_grad_(False)
    model.zero_grad(set_to_none=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibration = Calibration(images=digits[0][:64])
    estimate_sensitivity(model, CHOICES[:8], layers=LAYERS, calibration=calibration, budget_s=0.5)
    assert model.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_masks_are_undone_when_evaluation_fails(trained_net: nn.Module) -> None:
    weight = layer_weight(trained_net, "wide")
    before = weight.clone()

    def fail_while_masked() -> None:
        with replaced(trained_net, {"wide": torch.zeros_like(weight)}):
            assert not weight.any()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_while_masked()
    assert torch.equal(before, weight)


def test_labels_are_the_models_own_answers_when_none_are_given(
    trained_net: nn.Module, digits: tuple[Tensor, Tensor]
) -> None:
    data = label(trained_net, Calibration(images=digits[0][:50]))
    assert torch.equal(data.labels, trained_net(digits[0][:50]).argmax(dim=1))


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (lambda images: Calibration(images=images[:0]), "no images"),
        (lambda images: Calibration(images=images[:4], labels=torch.zeros(3)), "4 images but 3 labels"),
    ],
)
def test_bad_calibration_data(calibration, message: str, digits: tuple[Tensor, Tensor]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        calibration(digits[0])


def test_models_and_labels_that_do_not_fit(trained_net: nn.Module, digits: tuple[Tensor, Tensor]) -> None:
    images = digits[0][:8]
    with pytest.raises(InputError, match="labels run from 0 to 11, the model has 10 classes"):
        label(trained_net, Calibration(images=images, labels=torch.tensor([0] * 7 + [11])))
    with pytest.raises(InputError, match=r"returns \[8, 1, 8, 8\]"):
        label(nn.ReLU(), Calibration(images=images))
