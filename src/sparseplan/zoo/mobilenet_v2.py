"""MobileNetV2 with the parameter names of torchvision, so that its weights load."""

from __future__ import annotations

from torch import Tensor, nn

from .he_init import he_init

_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, output channels, blocks, stride of the first block (table 2 of the paper)."""


def _conv_bn_relu6(
    in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, narrow by 1x1 without activation."""

    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        width = in_channels * expansion
        widen = [_conv_bn_relu6(in_channels, width, kernel=1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *widen,
            _conv_bn_relu6(width, width, kernel=3, stride=stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.use_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Input [N, C, 224, 224], output [N, classes]."""

    def __init__(self, *, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        features: list[nn.Module] = [_conv_bn_relu6(in_channels, 32, kernel=3, stride=2)]
        channels = 32
        for expansion, width, blocks, first_stride in _STAGES:
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                features.append(InvertedResidual(channels, width, expansion=expansion, stride=stride))
                channels = width
        features.append(_conv_bn_relu6(channels, 1280, kernel=1))
        self.features = nn.Sequential(*features)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.average(self.features(x)).flatten(1))


def mobilenet_v2(*, classes: int = 1000, in_channels: int = 3) -> MobileNetV2:
    """MobileNetV2 of width 1.0 (Sandler et al., CVPR 2018)."""
    return MobileNetV2(classes=classes, in_channels=in_channels)
