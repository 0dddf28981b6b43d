"""A model of one's own: ``sparseplan plan --model examples/own_model.py:build --input 32,3,32,32 ...``"""

import torch
from torch import Tensor, nn


class OwnNet(nn.Module):
    """A stem, a residual block, a grouped and a depth-wise convolution, and a linear head, for 32x32 colour images."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(64)
        self.branch1 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.branch_norm = nn.BatchNorm2d(64)
        self.branch2 = nn.Conv2d(64, 64, 3, padding=1)
        self.grouped = nn.Conv2d(64, 128, 3, stride=2, padding=1, groups=4)
        self.depthwise = nn.Conv2d(128, 128, 5, stride=2, padding=2, groups=128)
        self.pointwise = nn.Conv2d(128, 256, 1)
        self.head = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = torch.relu(x + self.branch2(torch.relu(self.branch_norm(self.branch1(x)))))
        x = torch.relu(self.grouped(x))
        x = torch.relu(self.pointwise(self.depthwise(x)))
        return self.head(x.mean(dim=(2, 3)))


def build() -> nn.Module:
    return OwnNet()
