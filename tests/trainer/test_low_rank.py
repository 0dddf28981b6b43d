"""Layers of low rank: what they compute while they are factors, and that training keeps their rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.lowrank import least_ranks, low_rank, ranks_for
from sparseplan.kernels.weight_view import weight_view
from sparseplan.trainer import Interrupted, loop
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.evaluate import Evaluation, evaluate
from sparseplan.trainer.loop import train
from sparseplan.trainer.low_rank import LowRankLayer, bring_to_low_rank, factorised, is_factorised, plain_state
from sparseplan.trainer.schema import make_config
from sparseplan.trainer.store import RunFolder, load_weights

MakeNet = Callable[..., nn.Module]
SPARSITIES = {"conv2": 0.6, "fc1": 0.5}


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(12, 16, 3, stride=2, padding=1), torch.randn(2, 12, 9, 9)),
        (nn.Conv2d(12, 16, 1, stride=2, bias=False), torch.randn(2, 12, 9, 9)),
        (nn.Conv2d(12, 16, (1, 3), padding=(0, 2), dilation=2, padding_mode="reflect"), torch.randn(2, 12, 9, 9)),
        (nn.Conv1d(12, 16, 3, padding=1), torch.randn(2, 12, 9)),
        (nn.Conv1d(12, 16, 1), torch.randn(2, 12, 9)),
        (nn.Linear(24, 16), torch.randn(3, 24)),
    ],
)
def test_factors_compute_what_the_layer_of_that_rank_does(layer: nn.Module, x: Tensor) -> None:
    thin = LowRankLayer(layer, 0.5)
    assert sum(p.numel() for n, p in thin.named_parameters() if "weight" in n) <= 0.5 * layer.weight.numel()
    view = weight_view(layer)
    nearest = low_rank(view, ranks_for(tuple(view.shape), 0.5))
    torch.testing.assert_close(thin.weight, nearest.detach().view(layer.weight.shape), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        view.copy_(nearest)
    torch.testing.assert_close(thin(x), layer(x), rtol=1e-4, atol=1e-5)


def test_layers_of_several_groups_are_refused() -> None:
    with pytest.raises(InputError, match="one group, this one has 4"):
        LowRankLayer(nn.Conv2d(8, 8, 3, groups=4), 0.5)


def test_the_plain_state_is_that_of_the_plain_network(make_net: MakeNet) -> None:
    model = make_net().eval()
    student = factorised(model, SPARSITIES)
    assert is_factorised(student)
    assert not is_factorised(model)
    assert factorised(model, {}) is model
    plain = make_net(1).eval()
    plain.load_state_dict(plain_state(student))
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(plain(x), student(x), rtol=1e-4, atol=1e-5)
    bring_to_low_rank(model, SPARSITIES)
    torch.testing.assert_close(model(x), student(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epochs", [0, 2])
def test_training_moves_the_factors_and_keeps_the_rank(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path, epochs: int
) -> None:
    dense = make_net()
    student = factorised(dense, SPARSITIES)
    config = make_config({"epochs": epochs, "batch_size": 64, "distillation": 0.5, "ema_decay": 0.9})
    history = train(student, digits, (), config=config, run_dir=tmp_path, dense=dense)
    trained = make_net()
    load_weights(trained, RunFolder(tmp_path).planned_weights)
    start = make_net()
    bring_to_low_rank(start, SPARSITIES)
    for name, sparsity in SPARSITIES.items():
        weight = weight_view(trained.get_submodule(name))
        ranks = ranks_for(tuple(weight.shape), sparsity)
        assert least_ranks(weight.detach(), 1e-6) == ranks
        moved = float((weight - weight_view(start.get_submodule(name))).detach().norm())
        assert (moved > 0.01) is (epochs > 0)
    if epochs:
        assert history.test_accuracy_frac > 0.6
    else:
        assert not torch.equal(trained.bn2.running_mean, start.bn2.running_mean)


def test_an_interrupted_training_of_factors_goes_on_bit_for_bit(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({"epochs": 2, "batch_size": 128, "distillation": 0.5})

    def run(folder: Path, *, resume: bool) -> dict[str, Tensor]:
        dense = make_net()
        student = factorised(dense, SPARSITIES)
        train(student, digits, (), config=config, run_dir=folder, dense=dense, resume=resume)
        return plain_state(student)

    whole = run(tmp_path / "whole", resume=False)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", stop_after(calls=3))
        with pytest.raises(Interrupted):
            run(tmp_path / "parts", resume=False)
    resumed = run(tmp_path / "parts", resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def stop_after(*, calls: int) -> Callable[..., Evaluation]:
    """Evaluates, but for the time after so many calls: two of the dense start, one an epoch."""
    count = iter(range(calls))

    def evaluate_or_stop(*args: object, **options: object) -> Evaluation:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return evaluate(*args, **options)

    return evaluate_or_stop
