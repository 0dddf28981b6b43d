"""The published CIFAR weights load strictly and classify."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sparseplan.data_spec import load_data
from sparseplan.model_spec import load_model
from sparseplan.trainer.data import DataSplits


@pytest.fixture(scope="module")
def cifar10(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> DataSplits:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return load_data(f"cifar10:{shared_data}")


def test_the_archive_has_all_images_of_all_classes(cifar10: DataSplits) -> None:
    assert (len(cifar10.train), len(cifar10.validation), len(cifar10.test)) == (45_000, 5_000, 10_000)
    assert cifar10.train.images.shape[1:] == (3, 32, 32)
    for split, each in ((cifar10.train, 4500), (cifar10.validation, 500), (cifar10.test, 1000)):
        assert split.labels.bincount().tolist() == [each] * 10
    assert cifar10.classes[0] == "airplane"
    assert cifar10.classes[9] == "truck"


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_the_baseline_weights_classify(cifar10: DataSplits, shared_data: Path, name: str) -> None:
    network = load_model(f"zoo:{name}")
    network.load_state_dict(load_file(shared_data / "weights" / f"{name}_cifar10jpeg.safetensors"), strict=True)
    network.eval()
    # The images lie class by class: 512 of them, spread over all classes.
    chosen = torch.linspace(0, len(cifar10.test) - 1, 512).long()
    with torch.inference_mode():
        guesses = network(cifar10.normalise(cifar10.test.images[chosen])).argmax(dim=1)

    assert (guesses == cifar10.test.labels[chosen]).float().mean() > 0.85
