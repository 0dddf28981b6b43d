"""GoogLeNet with the 5x5 branches of the paper, as Caffe's reference model; without the auxiliary classifiers."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .response_norm import response_norm


class Widths(NamedTuple):
    """Output channels inside an inception block (columns of table 1 of the paper)."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int

    @property
    def total(self) -> int:
        return self.one + self.three + self.five + self.pool


_STAGES: dict[int, dict[str, Widths]] = {
    3: {"a": Widths(64, 96, 128, 16, 32, 32), "b": Widths(128, 128, 192, 32, 96, 64)},
    4: {
        "a": Widths(192, 96, 208, 16, 48, 64),
        "b": Widths(160, 112, 224, 24, 64, 64),
        "c": Widths(128, 128, 256, 24, 64, 64),
        "d": Widths(112, 144, 288, 32, 64, 64),
        "e": Widths(256, 160, 320, 32, 128, 128),
    },
    5: {"a": Widths(256, 160, 320, 32, 128, 128), "b": Widths(384, 192, 384, 48, 128, 128)},
}


class ConvRelu(nn.Module):
    """Convolution and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x))


class Inception(nn.Module):
    """Four branches over one input, joined along the channels."""

    def __init__(self, in_channels: int, widths: Widths) -> None:
        super().__init__()
        self.one = ConvRelu(in_channels, widths.one, 1)
        self.three_reduce = ConvRelu(in_channels, widths.three_reduce, 1)
        self.three = ConvRelu(widths.three_reduce, widths.three, 3)
        self.five_reduce = ConvRelu(in_channels, widths.five_reduce, 1)
        self.five = ConvRelu(widths.five_reduce, widths.five, 5)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool_project = ConvRelu(in_channels, widths.pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.one(x),
            self.three(self.three_reduce(x)),
            self.five(self.five_reduce(x)),
            self.pool_project(self.pool(x)),
        ]
        return torch.cat(branches, dim=1)


def _halve() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class GoogLeNet(nn.Module):
    """Input [N, C, 224, 224], output [N, classes]."""

    def __init__(self, *, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = ConvRelu(in_channels, 64, 7, stride=2)
        self.pool1 = _halve()
        self.norm1 = response_norm()
        self.conv2_reduce = ConvRelu(64, 64, 1)
        self.conv2 = ConvRelu(64, 192, 3)
        self.norm2 = response_norm()
        self.pool2 = _halve()
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        channels = 192
        for stage, members in _STAGES.items():
            if stage > 3:
                blocks[f"pool{stage - 1}"] = _halve()
            for letter, widths in members.items():
                blocks[f"{stage}{letter}"] = Inception(channels, widths)
                channels = widths.total
        self.inception = nn.Sequential(blocks)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pool1(self.conv1(x)))
        x = self.pool2(self.norm2(self.conv2(self.conv2_reduce(x))))
        x = self.average(self.inception(x))
        return self.fc(self.dropout(x.flatten(1)))


def googlenet(*, classes: int = 1000, in_channels: int = 3) -> GoogLeNet:
    """GoogLeNet, the network whose 3x3 and 5x5 layers GSL prunes.

    References
    ----------
    Szegedy et al., Going deeper with convolutions, CVPR 2015, table 1; Park et al., ICLR 2017.
    """
    return GoogLeNet(classes=classes, in_channels=in_channels)
