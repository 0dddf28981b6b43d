"""Loss and accuracy of a model on one split."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from .data import DataSplits, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Mean cross entropy (nat) and share of the images that are classified rightly."""

    loss: float
    accuracy_frac: float


@torch.inference_mode()
def evaluate(model: nn.Module, data: DataSplits, split: Split, *, batch_size: int) -> Evaluation:
    """Run a model over a split of the data, in evaluation mode; its mode is restored afterwards.

    Parameters
    ----------
    split : Split
        One of the splits of `data`, whose normalisation and classes hold for it.

    Raises
    ------
    InputError
        If the model does not take images of this shape, or its outputs are not one for each class.
    """
    device = device_of(model)
    was_training = model.training
    model.eval()
    loss, correct = 0.0, 0
    try:
        for start in range(0, len(split), batch_size):
            images = data.normalise(split.images[start : start + batch_size]).to(device)
            labels = split.labels[start : start + batch_size].to(device)
            outputs = model(images) if start else _first_outputs(model, images, data, labels=split.labels)
            loss += float(nn.functional.cross_entropy(outputs.float(), labels, reduction="sum"))
            correct += int((outputs.argmax(dim=1) == labels).sum())
    finally:
        model.train(was_training)
    return Evaluation(loss=loss / len(split), accuracy_frac=correct / len(split))


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters and buffers lie; the CPU for a model without any."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def _first_outputs(model: nn.Module, images: Tensor, data: DataSplits, *, labels: Tensor) -> Tensor:
    name, classes = type(model).__name__, len(data.classes)
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"data {data.name!r} has labels from {int(labels.min())} to {int(labels.max())} but {classes} classes; "
            "labels count from 0"
        )
    try:
        outputs = model(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"model {name} does not take images of shape {tuple(images.shape[1:])} of data {data.name!r}: {reason}; "
            "give data of the model's input shape"
        ) from None
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] != classes:
        seen = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(
            f"model {name} gives outputs of shape {seen}, but data {data.name!r} has {classes} classes; "
            f"the outputs must be [N, {classes}]"
        )
    return outputs
