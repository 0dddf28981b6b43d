"""AlexNet as Caffe's reference model (CaffeNet), with its two groups."""

from __future__ import annotations

from torch import Tensor, nn

from .response_norm import response_norm


class AlexNet(nn.Module):
    """Input [N, C, 227, 227], output [N, classes].

    CaffeNet pools before it normalises; the paper's AlexNet does it the other way round. Weights have the same shapes.
    """

    def __init__(self, *, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 96, 11, stride=4)
        self.norm1 = response_norm()
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.norm2 = response_norm()
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.pool(self.relu(self.conv1(x))))
        x = self.norm2(self.pool(self.relu(self.conv2(x))))
        x = self.relu(self.conv3(x))
        x = self.relu(self.conv4(x))
        x = self.pool(self.relu(self.conv5(x)))
        x = self.dropout(self.relu(self.fc6(x.flatten(1))))
        x = self.dropout(self.relu(self.fc7(x)))
        return self.fc8(x)


def alexnet(*, classes: int = 1000, in_channels: int = 3) -> AlexNet:
    """CaffeNet, the AlexNet that SSL and GSL prune.

    References
    ----------
    Krizhevsky et al., NIPS 2012; Wen et al., NIPS 2016, table 4; Park et al., ICLR 2017.
    """
    return AlexNet(classes=classes, in_channels=in_channels)
