"""A small real problem (handwritten digits) and a network for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from sparseplan.trainer.data import DataSplits, Split


class DigitNet(nn.Module):
    """Convolutions with batch-norm, a residual, dropout and a linear layer: everything that training has to carry."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc1 = nn.Linear(32 * 4, 64)
        self.dropout = nn.Dropout(0.1)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)) + x)
        x = torch.nn.functional.max_pool2d(x, 4).flatten(1)
        return self.fc2(self.dropout(torch.relu(self.fc1(x))))


def digit_net(seed: int = 0) -> DigitNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DigitNet()


def load_digit_splits(train: int = 1200) -> DataSplits:
    bunch = load_digits()
    images = torch.from_numpy(bunch.images * (255 / 16)).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()

    def split(start: int, stop: int) -> Split:
        return Split(images=images[start:stop], labels=labels[start:stop])

    return DataSplits(
        name="digits",
        train=split(0, train),
        validation=split(1200, 1500),
        test=split(1500, 1797),
        classes=tuple(str(digit) for digit in range(10)),
        mean=(0.3,),
        std=(0.38,),
        augment="shift",
    )


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    return load_digit_splits()


@pytest.fixture(scope="session")
def make_net() -> Callable[..., DigitNet]:
    return digit_net


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """So small a network only waits for a second thread, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
