"""ResNets for CIFAR-10 whose shortcuts carry no weights (option A)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .he_init import he_init


class PaddedShortcut(nn.Module):
    """Option A: take every second pixel and fill the new channels with zeros, half before and half after."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], self.padding)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity() if stride == 1 else PaddedShortcut(in_channels, out_channels)
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    """A row of blocks; the first halves the image where the stage widens."""
    first = BasicBlock(in_channels, out_channels, stride=1 if in_channels == out_channels else 2)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)))


class CifarResNet(nn.Module):
    """Input [N, C, 32, 32], output [N, classes]; 6 * blocks + 2 layers with weights."""

    def __init__(self, blocks: int, *, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(16, 16, blocks)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.average(x).flatten(1))


def resnet20(*, classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR ResNet of 20 layers (He et al., CVPR 2016, section 4.2)."""
    return CifarResNet(3, classes=classes, in_channels=in_channels)


def resnet32(*, classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR ResNet of 32 layers (He et al., CVPR 2016, section 4.2)."""
    return CifarResNet(5, classes=classes, in_channels=in_channels)


def resnet44(*, classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR ResNet of 44 layers (He et al., CVPR 2016, section 4.2)."""
    return CifarResNet(7, classes=classes, in_channels=in_channels)


def resnet56(*, classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR ResNet of 56 layers (He et al., CVPR 2016, section 4.2)."""
    return CifarResNet(9, classes=classes, in_channels=in_channels)
