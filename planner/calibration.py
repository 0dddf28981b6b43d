"""Calibration data, and what a model loses on it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.errors import InputError
from .batch_statistics import batch_statistics

EVALUATION_BATCH = 128
ENOUGH_FOR_STATISTICS = 32
"""Images that a batch norm can take its statistics from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A few hundred images that stand for the task.

    Attributes
    ----------
    images : Tensor
        [N, C, H, W] float32, normalised as the model expects.
    labels : Tensor or None
        [N] int64; None takes the dense model's own answers as the truth.
    """

    images: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise InputError("calibration data: no images; give at least one")
        if self.labels is not None and len(self.labels) != len(self.images):
            raise InputError(
                f"calibration data: {len(self.images)} images but {len(self.labels)} labels; they must be as many"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Calibration images with a truth for each: given, or the dense model's own answer."""

    images: Tensor
    labels: Tensor


def label(model: nn.Module, calibration: Calibration) -> Labelled:
    """Give every image a truth; the model must be in eval mode.

    Raises
    ------
    InputError
        If the model's outputs are not finite scores [N, classes], or a label is none of these classes.
    """
    scores = logits(model, calibration.images)
    labels = scores.argmax(dim=1) if calibration.labels is None else calibration.labels
    classes = scores.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(
            f"calibration labels run from {int(labels.min())} to {int(labels.max())}, the model has {classes} classes; "
            "give the data that the model was made for"
        )
    return Labelled(images=calibration.images, labels=labels)


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    """Class scores [N, classes] of a model in eval mode.

    Raises
    ------
    InputError
        If the model does not return finite scores [N, classes].
    """
    found = []
    for batch in images.split(EVALUATION_BATCH):
        scores = model(batch)
        if not isinstance(scores, Tensor) or scores.dim() != 2:
            shown = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(
                f"calibration needs a classifier that returns scores [N, classes], this model returns {shown}; "
                "plan without data, by weight magnitude"
            )
        found.append(scores.float())
    scores = torch.cat(found)
    if not bool(torch.isfinite(scores).all()):
        raise InputError("the model's scores on the calibration data are NaN or infinite; check weights and data")
    return scores


def sample_losses(model: nn.Module, data: Labelled) -> Tensor:
    """Cross-entropy of each image, [N], in nat; scores that overflow count as a very bad answer.

    Batch norms take their statistics from the images, where these are enough.
    """
    return F.cross_entropy(torch.nan_to_num(_scores(model, data.images)), data.labels, reduction="none")


def accuracy_frac(model: nn.Module, data: Labelled) -> float:
    """Share of the images whose truth gets the highest score; batch norms as in `sample_losses`."""
    return float((_scores(model, data.images).argmax(dim=1) == data.labels).float().mean())


@torch.no_grad()
def _scores(model: nn.Module, images: Tensor) -> Tensor:
    # Batches of equal size: the statistics of a last one of few images would be no statistics.
    batches = images.chunk(math.ceil(len(images) / EVALUATION_BATCH))
    with batch_statistics(model) if len(batches[-1]) >= ENOUGH_FOR_STATISTICS else nullcontext():
        return torch.cat([model(batch).float() for batch in batches])
