"""Losses of pruned networks are those after their batch-norm statistics have been measured anew."""

import torch
from torch import nn

from sparseplan.planner.ablation import LEAST_LOSS, Ablation, WeightChoice
from sparseplan.planner.batch_statistics import batch_statistics
from sparseplan.planner.calibration import ENOUGH_FOR_STATISTICS, Labelled, sample_losses

CHOICE = WeightChoice(layer="0", pattern="unstructured", sparsity=0.5)


def _network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    with torch.no_grad():
        model[-1].weight.mul_(5.0)
        for _ in range(50):
            model(torch.randn(32, 1, 8, 8))
    return model.eval()


def _data(images: int) -> Labelled:
    generator = torch.Generator().manual_seed(1)
    return Labelled(
        images=torch.randn(images, 1, 8, 8, generator=generator),
        labels=torch.randint(0, 4, (images,), generator=generator),
    )


def _rise(images: int) -> float:
    model = _network()
    weight = model.get_submodule("0").weight.detach()
    ablation = Ablation(model, lambda _: 0.05 * weight, data=_data(images), wanted=1.0, budget_s=60.0)
    return ablation.measure(CHOICE).loss


def test_a_layer_scaled_before_a_batch_norm_costs_nothing() -> None:
    assert _rise(256) < 100 * LEAST_LOSS
    assert _rise(ENOUGH_FOR_STATISTICS - 1) > 0.01


def test_batches_are_of_equal_size() -> None:
    """The last of 129 images would have no statistics of its own."""
    model, data = _network(), _data(129)
    halves = [Labelled(images=data.images[part], labels=data.labels[part]) for part in (slice(65), slice(65, 129))]
    expected = torch.cat([sample_losses(model, half) for half in halves])
    torch.testing.assert_close(sample_losses(model, data), expected)


def test_statistics_of_the_batch_leave_no_trace() -> None:
    model = _network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with batch_statistics(model):
        model(torch.randn(64, 1, 8, 8) + 3.0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert model.get_submodule("1").track_running_stats
