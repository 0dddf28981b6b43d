from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.trainer.batch_norm import reestimate_batch_norm
from sparseplan.trainer.data import DataSplits, Split
from sparseplan.trainer.evaluate import evaluate


def test_loss_and_accuracy_do_not_depend_on_the_batches(digits: DataSplits, make_net: Callable[[], nn.Module]) -> None:
    net = make_net()
    whole = evaluate(net, digits, digits.test, batch_size=1000)
    with torch.no_grad():
        outputs = net.eval()(digits.normalise(digits.test.images))
    assert whole.accuracy_frac == float((outputs.argmax(1) == digits.test.labels).double().mean())
    assert whole.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, digits.test.labels)), rel=1e-5)
    parts = evaluate(net, digits, digits.test, batch_size=7)
    assert parts.accuracy_frac == whole.accuracy_frac
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(digits: DataSplits, make_net: Callable[[], nn.Module], training: bool) -> None:
    net = make_net().train(training)
    statistics = net.bn1.running_mean.clone()
    evaluate(net, digits, digits.test, batch_size=64)
    assert net.training is training
    assert torch.equal(net.bn1.running_mean, statistics)


def test_another_number_of_classes_is_named(digits: DataSplits) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    with pytest.raises(InputError, match=r"outputs of shape \(64, 7\), but data 'digits' has 10 classes"):
        evaluate(net, digits, digits.test, batch_size=64)


def test_another_image_shape_is_named(digits: DataSplits) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(
        InputError, match=r"Sequential does not take images of shape \(1, 8, 8\) of data 'digits'"
    ) as seen:
        evaluate(net, digits, digits.test, batch_size=64)
    assert "\n" not in str(seen.value)


def test_labels_beyond_the_classes_are_refused(digits: DataSplits, make_net: Callable[[], nn.Module]) -> None:
    split = Split(images=digits.test.images[:4], labels=torch.tensor([0, 1, 2, 10]))
    with pytest.raises(InputError, match="labels from 0 to 10 but 10 classes"):
        evaluate(make_net(), digits, split, batch_size=4)


def test_batch_norm_statistics_become_those_of_the_training_data(
    digits: DataSplits, make_net: Callable[[], nn.Module]
) -> None:
    data = replace(digits, augment="none")
    net = make_net()
    net.bn1.running_mean += 5.0
    weights = {name: value.clone() for name, value in net.named_parameters()}
    reestimate_batch_norm(net, data, batch_size=100, seed=0)
    with torch.no_grad():
        outputs = net.conv1(data.normalise(data.train.images))
    torch.testing.assert_close(net.bn1.running_mean, outputs.mean(dim=(0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(net.bn1.running_var, outputs.var(dim=(0, 2, 3)), atol=1e-3, rtol=2e-2)
    assert net.bn1.momentum == 0.1
    assert net.training
    assert all(torch.equal(value, weights[name]) for name, value in net.named_parameters())
