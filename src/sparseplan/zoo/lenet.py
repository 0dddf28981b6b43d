"""LeNet as Caffe ships it and SSL prunes it."""

from __future__ import annotations

from torch import Tensor, nn


class LeNet(nn.Module):
    """Input [N, C, 28, 28], output [N, classes]; the only ReLU follows the first linear layer, as in Caffe."""

    def __init__(self, *, classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 20, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.relu1 = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool2(self.conv2(self.pool1(self.conv1(x))))
        return self.fc2(self.relu1(self.fc1(x.flatten(1))))


def lenet(*, classes: int = 10, in_channels: int = 1) -> LeNet:
    """LeNet of Caffe's MNIST example.

    References
    ----------
    LeCun et al., Gradient-based learning applied to document recognition, 1998; Wen et al., NIPS 2016, table 1.
    """
    return LeNet(classes=classes, in_channels=in_channels)
