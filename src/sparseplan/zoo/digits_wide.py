"""The demo's network: deliberately over-wide for 8x8 digits, so that there is something to find."""

from __future__ import annotations

from torch import Tensor, nn


class ConvBnRelu(nn.Module):
    """3x3 convolution that keeps the image size, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class DigitsWide(nn.Module):
    """Input [N, C, 8, 8], output [N, classes]; 66.2 Mflop an image.

    Two layers at 8x8 and one at 4x4 carry nearly all of the work, in two different shapes.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.block1 = ConvBnRelu(in_channels, 64)
        self.block2 = ConvBnRelu(64, 128)
        self.block3 = ConvBnRelu(128, 256)
        self.pool = nn.MaxPool2d(2)
        self.block4 = ConvBnRelu(256, 256)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(x)))
        x = self.block4(self.pool(x))
        return self.linear(self.average(x).flatten(1))


def digits_wide(*, classes: int = 10, in_channels: int = 1) -> DigitsWide:
    """Over-wide convolutional network for scikit-learn's digits."""
    return DigitsWide(classes=classes, in_channels=in_channels)
