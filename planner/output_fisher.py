"""How much the loss minds a change of each layer's output."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.progress import Progress
from .calibration import Labelled

GRADIENT_BATCH = 32


def output_fisher(
    model: nn.Module, layers: Sequence[str], *, data: Labelled, budget_s: float, progress: Progress
) -> Mapping[str, Tensor]:
    """Second moment of the loss's gradient at the output channels of each layer, mean over images and positions.

    Half of it times the squared change of a channel's output, summed over positions, is about the rise of an image's
    loss: the Fisher information of the outputs, its cross terms between channels and positions left out (as K-FAC
    does for positions).

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    budget_s : float
        No further batch is begun after this time, in seconds; one always is.

    Returns
    -------
    mapping
        By layer, [K], nat per squared unit of output.

    References
    ----------
    Grosse & Martens, A Kronecker-factored approximate Fisher matrix for convolution layers, ICML 2016, section 3.
    """
    sums = dict.fromkeys(layers, torch.zeros(()))
    outputs: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            tracked = output if output.requires_grad else output.requires_grad_()
            outputs.append((name, tracked))
            # In-place activations behind the layer would else overwrite what the gradient is asked for.
            return tracked.clone()

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    deadline = time.perf_counter() + budget_s
    done = 0
    try:
        batches = list(zip(data.images.split(GRADIENT_BATCH), data.labels.split(GRADIENT_BATCH), strict=True))
        for images, labels in batches:
            if done and time.perf_counter() >= deadline:
                break
            outputs.clear()
            with torch.enable_grad():
                loss = F.cross_entropy(model(images).float(), labels, reduction="sum")
            gradients = torch.autograd.grad(loss, [output for _, output in outputs], allow_unused=True)
            for (name, _), gradient in zip(outputs, gradients, strict=True):
                if gradient is not None:
                    channels = 1 if isinstance(model.get_submodule(name), nn.Conv2d) else -1
                    square = gradient.square().movedim(channels, 0).flatten(1).mean(dim=1)
                    sums[name] = sums[name] + square * (len(images) / GRADIENT_BATCH)
            done += 1
            progress("output gradients", done, len(batches))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / max(done, 1) for name, total in sums.items()}
