"""What a user's own callable returns, checked and made into splits."""

from __future__ import annotations

import numpy as np
import torch

from ..kernels.errors import InputError
from ..trainer.data import DataSplits
from .assemble import Images, assemble

RETURNS = "a DataSplits or (train_x, train_y, test_x, test_y), x [N, C, H, W] of uint8 or float, y [N] of integers"


def from_user(made: object, spec: str) -> DataSplits:
    """Take splits as they are, or make them of four arrays (numpy or torch).

    A tenth of each training class validates. uint8 images are normalised by what is measured on them; float images are
    taken as they are. Nothing is augmented.

    Raises
    ------
    InputError
        If it is neither, or shapes, types or values do not fit.
    """
    if isinstance(made, DataSplits):
        return made
    if not isinstance(made, tuple | list) or len(made) != 4:
        what = f"{len(made)} values" if isinstance(made, tuple | list) else type(made).__name__
        raise InputError(f"{spec!r} gave {what}; return {RETURNS}")
    arrays = [_as_array(value, spec) for value in made]
    train = _images(arrays[0], arrays[1], f"{spec!r}, train")
    test = _images(arrays[2], arrays[3], f"{spec!r}, test")
    if train.images.dtype != test.images.dtype:
        raise InputError(
            f"{spec!r}: train_x is {train.images.dtype}, test_x is {test.images.dtype}; they must be of one type"
        )
    count = int(train.labels.max()) + 1
    if test.labels.max() >= count:
        raise InputError(
            f"{spec!r}: test_y has a label {int(test.labels.max())}, train_y ends at {count - 1}; they must agree"
        )
    return assemble(spec, train, test=test, classes=tuple(str(label) for label in range(count)), augment="none")


def _as_array(value: object, spec: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value
    raise InputError(f"{spec!r} gave a {type(value).__name__} among its arrays; return {RETURNS}")


def _images(x: np.ndarray, y: np.ndarray, where: str) -> Images:
    if x.ndim != 4 or 0 in x.shape:
        raise InputError(f"{where}_x has shape {x.shape}; it must be [N, C, H, W] with at least one image")
    if y.shape != (len(x),) or y.dtype.kind not in "iu":
        raise InputError(f"{where}_y has shape {y.shape} of {y.dtype}; it must be [{len(x)}] of integers, as {where}_x")
    if y.min() < 0:
        raise InputError(f"{where}_y has a label {int(y.min())}; labels start at 0")
    if x.dtype != np.uint8:
        if x.dtype.kind != "f":
            raise InputError(f"{where}_x is of {x.dtype}; it must be uint8 (0 to 255) or float")
        if not np.isfinite(x).all():
            raise InputError(f"{where}_x has NaN or infinite values; remove them")
        x = x.astype(np.float32)
    return Images(images=x, labels=y.astype(np.int64))
