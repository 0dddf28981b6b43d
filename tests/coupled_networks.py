"""Small networks whose layers share channels in every way that networks do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Two blocks beside a shortcut, the first with a convolution on it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv1, self.norm1 = nn.Conv2d(12, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 20, 3, padding=1, bias=False), nn.BatchNorm2d(20)
        self.shortcut = nn.Conv2d(12, 20, 1)
        self.conv3, self.norm3 = nn.Conv2d(20, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv4 = nn.Conv2d(8, 20, 3, padding=1)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        x = torch.relu(y + self.shortcut(x))
        x = torch.relu(x + self.conv4(torch.relu(self.norm3(self.conv3(x)))))
        return self.head(x.mean(dim=(2, 3)))


class Joining(nn.Module):
    """Three branches, joined along the channels, and two that are joined again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.two, self.three = (nn.Conv2d(8, width, 1) for width in (4, 6, 5))
        self.after, self.norm = nn.Conv2d(15, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.last = nn.Conv2d(15, 4, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.cat([torch.relu(self.one(x)), torch.sigmoid(self.two(x)), self.three(x)], dim=1)
        x = torch.cat([torch.relu(self.norm(self.after(x))), self.last(x)], dim=1)
        return self.head(x.mean(dim=(2, 3)))


class Grouped(nn.Module):
    """An inverted residual with a depth-wise convolution, and one in four groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.expand, self.norm1 = nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depthwise, self.norm2 = nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.project = nn.Conv2d(24, 16, 1)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = functional.relu6(self.norm1(self.expand(x)))
        x = x + self.project(functional.relu6(self.norm2(self.depthwise(y))))
        return self.head(torch.relu(self.grouped(x)).mean(dim=(2, 3)))


class Attention(nn.Module):
    """Two encoder blocks over 16 tokens: one projection for queries, keys and values, and three."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 24, 2, stride=2)
        self.first, self.second = _Fused(24, heads=4), _Separate(24, heads=3)
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(4))
        self.up, self.down = nn.Linear(24, 40), nn.Linear(40, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.first(self.norms[0](x))
        x = x + self.second(self.norms[1](x))
        x = x + self.down(functional.gelu(self.up(self.norms[2](x))))
        return self.head(self.norms[3](x).mean(dim=1))


class _Fused(nn.Module):
    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(y.transpose(1, 2).flatten(2))


class _Separate(nn.Module):
    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.num_heads, self.all_head_size = heads, width
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        split = [
            part(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        ]
        y = functional.scaled_dot_product_attention(*split)
        return self.out(y.transpose(1, 2).reshape(x.shape[0], x.shape[1], self.all_head_size))


NETWORKS = (Residual, Joining, Grouped, Attention)


def network(kind: type[nn.Module]) -> nn.Module:
    """With statistics and scales that are not those of a fresh network."""
    torch.manual_seed(0)
    model = kind()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))
