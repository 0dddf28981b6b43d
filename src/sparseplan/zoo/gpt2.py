"""GPT-2: decoder blocks with causal attention; names of transformers, linears for its transposed Conv1D."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

_INIT_STD = 0.02
VOCABULARY = 50_257
LONGEST = 1024


class Attention(nn.Module):
    """Causal self-attention over [N, T, width]."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.c_attn(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linears with GELU (in the form with tanh) between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))


class DecoderBlock(nn.Module):
    """Attention and perceptron, each normalised first and beside a shortcut."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads=heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    """Token ids [N, T], T up to 1024, to the logits of the next token [N, T, vocabulary]."""

    def __init__(self, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, width)
        self.wpe = nn.Embedding(LONGEST, width)
        self.h = nn.Sequential(*(DecoderBlock(width, heads=heads) for _ in range(depth)))
        self.ln_f = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        return functional.linear(self.ln_f(self.h(x)), self.wte.weight)


def gpt2_small() -> Gpt2:
    """GPT-2 of 124 million parameters; its output layer is its embedding.

    References
    ----------
    Radford et al., Language models are unsupervised multitask learners, 2019.
    """
    return Gpt2(width=768, depth=12, heads=12)
