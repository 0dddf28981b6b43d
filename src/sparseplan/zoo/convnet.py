"""ConvNet for CIFAR-10 as Caffe ships it ("cifar10_full") and SSL prunes it."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Input [N, C, 32, 32], output [N, classes].

    Caffe normalises within channels (LRN) after the first two layers. torch has no such operator, so each
    convolution is followed by batch normalisation instead, which inference folds into the convolution.
    """

    def __init__(self, *, classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.pool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.pool2 = nn.AvgPool2d(3, stride=2, ceil_mode=True)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.pool3 = nn.AvgPool2d(3, stride=2, ceil_mode=True)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(64 * 4 * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.pool1(self.bn1(self.conv1(x))))
        x = self.pool2(self.relu(self.bn2(self.conv2(x))))
        x = self.pool3(self.relu(self.bn3(self.conv3(x))))
        return self.fc(x.flatten(1))


def convnet(*, classes: int = 10, in_channels: int = 3) -> ConvNet:
    """ConvNet of Caffe's CIFAR-10 example, with batch normalisation in place of LRN.

    References
    ----------
    Krizhevsky, cuda-convnet, 2012; Wen et al., NIPS 2016, table 2.
    """
    return ConvNet(classes=classes, in_channels=in_channels)
