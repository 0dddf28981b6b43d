"""Vision transformer with the parameter names of timm, so that its weights load; every projection is a plain linear."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_INIT_STD = 0.02


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each: [N, C, H, W] to [N, patches, width]."""

    def __init__(self, in_channels: int, width: int, *, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over [N, tokens, width]."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, *, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class EncoderBlock(nn.Module):
    """Attention and perceptron, each normalised first and beside a shortcut."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads=heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden=4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Input [N, C, 224, 224], output [N, classes]."""

    def __init__(self, *, width: int, depth: int, heads: int, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        patch, image = 16, 224
        self.patch_embed = PatchEmbed(in_channels, width, patch=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads=heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        self._init()

    def _init(self) -> None:
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=_INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_INIT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit_small(*, classes: int = 1000, in_channels: int = 3) -> VisionTransformer:
    """ViT-S/16 for 224x224 (timm's vit_small_patch16_224).

    References
    ----------
    Dosovitskiy et al., ICLR 2021; Touvron et al., ICML 2021 (the small width).
    """
    return VisionTransformer(width=384, depth=12, heads=6, classes=classes, in_channels=in_channels)
