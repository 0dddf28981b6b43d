"""Batch-norm statistics measured anew, for a network that was masked without training."""

from __future__ import annotations

import torch
from torch import nn

from .batches import training_batches
from .data import DataSplits
from .evaluate import device_of

_IMAGES = 6400
"""Enough that the statistics' own sampling error is about 1 % of a standard deviation (1/sqrt(6400))."""

_BatchNorm = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, data: DataSplits, *, batch_size: int, seed: int) -> None:
    """Replace the running statistics of every batch-norm by plain averages over training batches.

    All other layers run in evaluation mode; no weight changes.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not layers:
        return
    was_training, momenta = model.training, [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    seen = 0
    generator = torch.Generator().manual_seed(seed)
    for images, _ in training_batches(data, batch_size=batch_size, generator=generator, device=device_of(model)):
        model(images)
        seen += len(images)
        if seen >= _IMAGES:
            break
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(was_training)
