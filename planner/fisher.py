"""How much the loss curves along each weight: the diagonal of the empirical Fisher information."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.progress import Progress
from .calibration import Labelled

GRADIENT_BATCH = 8
"""Images a gradient: small, because the square of a mean forgets most of what single images say."""
LEAST_BATCHES = 4


def fisher_diagonal(
    model: nn.Module, layers: Sequence[str], *, data: Labelled, budget_s: float, progress: Progress
) -> Mapping[str, Tensor]:
    """Diagonal of the empirical Fisher information of each layer's weight, as a stand-in for the Hessian.

    With gradients g_b of the mean loss of batches of B images, F_ii = B * mean_b(g_b,i ** 2): the gradients of single
    images vary about a mean that is near zero in a trained network, and averaging over B divides their variance by B.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    budget_s : float
        No further batch is begun after this time, in seconds; `LEAST_BATCHES` always are.

    Returns
    -------
    mapping
        By layer, of the shape of its weight.

    References
    ----------
    Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018 (arXiv 1801.05787), eq. 7-9;
    Singh & Alistarh, WoodFisher, NeurIPS 2020, section 3.
    """
    weights = [model.get_submodule(name).get_parameter("weight") for name in layers]
    squares = [torch.zeros_like(weight) for weight in weights]
    images, labels = data.images.split(GRADIENT_BATCH), data.labels.split(GRADIENT_BATCH)
    deadline = time.perf_counter() + budget_s
    done = 0
    with _differentiable(weights):
        for batch, truth in zip(images, labels, strict=True):
            if done >= LEAST_BATCHES and time.perf_counter() >= deadline:
                break
            with torch.enable_grad():
                loss = F.cross_entropy(model(batch).float(), truth)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for square, gradient in zip(squares, gradients, strict=True):
                if gradient is not None:
                    square.addcmul_(gradient, gradient, value=len(batch))
            done += 1
            progress("gradients", done, len(images))
    return {name: square / done for name, square in zip(layers, squares, strict=True)}


@contextmanager
def _differentiable(weights: Sequence[Tensor]) -> Iterator[None]:
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)
