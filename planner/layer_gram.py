"""What a layer's inputs look like: their second moments, from which the error of any change to its weights follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.progress import Progress, silent
from ..kernels.weight_view import weight_view

BATCH = 32
"""Images at a time: the columns of a convolution are its input nine times over."""
LEAST_COLUMNS = 65536
COLUMNS_A_WEIGHT = 16
"""A matrix of D x D is made from at least this many columns, or 16 D if that is more, where the data have so many;
further positions of the same images say little new and would make large images cost most of the time."""
MOST_BYTES = 1 << 30
"""Of the matrices that are filled in one pass over the data; a network with more takes several passes."""


@torch.no_grad()
def layer_grams(
    model: nn.Module, layers: Sequence[str], images: Tensor, *, progress: Progress = silent
) -> Iterator[tuple[str, Tensor]]:
    """Second moments of the inputs of each layer, one layer after the other.

    With x the inputs that one output position reads, [D] with D = C*R*S, and N images, the matrix is
    (1 / N) sum x x^T over all images and positions. A change dW of the weights then changes the layer's output by
    tr(dW gram dW^T), summed over positions and output channels and averaged over images. Twice this matrix is the
    Hessian of Optimal Brain Surgeon.

    Parameters
    ----------
    model : nn.Module
        In eval mode, run on the images in batches.
    images : Tensor
        [N, ...], as the model takes them.

    Yields
    ------
    tuple of str and Tensor
        Layer and its matrices, [groups, D, D] float32; zeros where the images never reach the layer.

    References
    ----------
    Frantar & Alistarh, Optimal Brain Compression, NeurIPS 2022 (arXiv 2208.11580), section 3.
    """
    passes = list(_passes(model, layers))
    for done, names in enumerate(passes):
        grams = {name: _empty(model.get_submodule(name)) for name in names}
        generator = torch.Generator().manual_seed(0)
        hooks = [
            model.get_submodule(name).register_forward_pre_hook(_adder(grams[name], len(images), generator))
            for name in names
        ]
        try:
            batches = images.split(BATCH)
            for number, batch in enumerate(batches):
                progress("layer inputs", done + number / len(batches), len(passes))
                model(batch)
        finally:
            for hook in hooks:
                hook.remove()
        progress("layer inputs", done + 1, len(passes))
        while grams:
            name = next(iter(grams))
            yield name, grams.pop(name).div_(len(images)).float()


def _passes(model: nn.Module, layers: Sequence[str]) -> Iterator[Mapping[str, None]]:
    taken: dict[str, None] = {}
    used = 0
    for name in layers:
        size = 8 * math.prod(_gram_shape(model.get_submodule(name)))
        if taken and used + size > MOST_BYTES:
            yield taken
            taken, used = {}, 0
        taken[name] = None
        used += size
    if taken:
        yield taken


def _gram_shape(module: nn.Module) -> tuple[int, int, int]:
    depth = math.prod(weight_view(module).shape[1:])
    groups = module.groups if isinstance(module, nn.Conv2d) else 1
    return groups, depth, depth


def _empty(module: nn.Module) -> Tensor:
    # Sums of half a million products: float64 between batches, float32 within one.
    return torch.zeros(_gram_shape(module), dtype=torch.float64)


def _adder(gram: Tensor, images: int, generator: torch.Generator) -> Any:
    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        columns = layer_columns(module, inputs[0])
        _, depth, positions = columns.shape
        share = inputs[0].shape[0] / images
        wanted = math.ceil(share * max(LEAST_COLUMNS, COLUMNS_A_WEIGHT * depth))
        if positions > wanted:
            columns = columns[:, :, torch.randperm(positions, generator=generator)[:wanted]]
        gram.add_(columns @ columns.mT, alpha=positions / columns.shape[2])

    return add


def layer_columns(module: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs of a layer as the columns that its weight rows multiply, [groups, D, positions of all samples]."""
    if isinstance(module, nn.Conv2d):
        padding: Any = module.padding
        if padding == "valid":
            padding = 0
        elif padding == "same":
            padding = tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size, strict=True))
        unfolded = F.unfold(inputs.float(), module.kernel_size, module.dilation, padding, module.stride)
        samples, _, positions = unfolded.shape
        split = unfolded.reshape(samples, module.groups, -1, positions)
        return split.permute(1, 2, 0, 3).flatten(2)
    return inputs.float().reshape(1, -1, inputs.shape[-1]).mT
