"""One batch of a model's input: random numbers of a given shape, or token ids for models that look them up."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def random_example(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers; ids below the size of the model's first embedding where it has one and takes [N, T].

    The same ones each time.
    """
    generator = torch.Generator().manual_seed(0)
    embedding = next((module for module in model.modules() if isinstance(module, nn.Embedding)), None)
    if embedding is not None and len(shape) == 2:
        return torch.randint(embedding.num_embeddings, shape, generator=generator)
    return torch.randn(shape, generator=generator)
