"""ResNets for ImageNet with the parameter names of torchvision, so that its weights load."""

from __future__ import annotations

from torch import Tensor, nn

from .he_init import he_init


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Option B: a 1x1 convolution on the shortcut where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 one carries the stride (torchvision's version 1.5)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


Block = type[BasicBlock] | type[Bottleneck]


def _stage(block: Block, in_channels: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = block(in_channels, width, stride=stride)
    rest = (block(width * block.expansion, width, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    """Input [N, C, 224, 224], output [N, classes]."""

    def __init__(
        self, block: Block, blocks: tuple[int, int, int, int], *, classes: int = 1000, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        out = block.expansion
        self.layer1 = _stage(block, 64, 64, blocks=blocks[0], stride=1)
        self.layer2 = _stage(block, 64 * out, 128, blocks=blocks[1], stride=2)
        self.layer3 = _stage(block, 128 * out, 256, blocks=blocks[2], stride=2)
        self.layer4 = _stage(block, 256 * out, 512, blocks=blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * out, classes)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(*, classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet of 18 layers (He et al., CVPR 2016, table 1)."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes=classes, in_channels=in_channels)


def resnet50(*, classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet of 50 layers (He et al., CVPR 2016, table 1)."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes=classes, in_channels=in_channels)
