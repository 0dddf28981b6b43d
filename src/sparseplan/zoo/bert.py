"""BERT with the parameter names of Hugging Face's transformers, so that its weights load; projections are linears."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_INIT_STD = 0.02
_EPSILON = 1e-12
VOCABULARY = 30_522
LONGEST = 512
TOKEN_TYPES = 2


class Embeddings(nn.Module):
    """Word, position and token type, summed and normalised: ids [N, T] to [N, T, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, width)
        self.position_embeddings = nn.Embedding(LONGEST, width)
        self.token_type_embeddings = nn.Embedding(TOKEN_TYPES, width)
        self.LayerNorm = nn.LayerNorm(width, eps=_EPSILON)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0])


class SelfAttention(nn.Module):
    """Queries, keys and values of [N, T, width] by three linears, and the attention over all heads."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            each(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (self.query, self.key, self.value)
        )
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Output(nn.Module):
    """A linear, the shortcut, and the normalisation behind both."""

    def __init__(self, wide: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(wide, width)
        self.LayerNorm = nn.LayerNorm(width, eps=_EPSILON)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + shortcut)


class Attention(nn.Module):
    """Self-attention with its projection."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.self = SelfAttention(width, heads=heads)
        self.output = Output(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.self(x), x)


class Intermediate(nn.Module):
    """The widening half of the perceptron."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, wide)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.dense(x))


class Layer(nn.Module):
    """One encoder block on [N, T, width]."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads=heads)
        self.intermediate = Intermediate(width, 4 * width)
        self.output = Output(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """The blocks, one after another."""

    def __init__(self, width: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(*(Layer(width, heads=heads) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Pooler(nn.Module):
    """What stands at the first token: [N, T, width] to [N, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x[:, 0]))


class BertModel(nn.Module):
    """Token ids [N, T] to the pooled state [N, width]; no token is masked."""

    def __init__(self, width: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(width)
        self.encoder = Encoder(width, depth=depth, heads=heads)
        self.pooler = Pooler(width)

    def forward(self, ids: Tensor) -> Tensor:
        return self.pooler(self.encoder(self.embeddings(ids)))


class BertClassifier(nn.Module):
    """Token ids [N, T], T up to 512, to [N, classes]."""

    def __init__(self, *, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.bert = BertModel(width, depth=depth, heads=heads)
        self.classifier = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_INIT_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Tensor:
        return self.classifier(self.bert(ids))


def bert_base(*, classes: int = 2) -> BertClassifier:
    """BERT-base, uncased, with a classifier on top.

    References
    ----------
    Devlin et al., NAACL 2019.
    """
    return BertClassifier(width=768, depth=12, heads=12, classes=classes)
