"""MNIST and what shares its form, such as Fashion-MNIST: four IDX files in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..kernels.errors import InputError
from ..trainer.data import DataSplits
from .assemble import Images, assemble
from .idx import read_idx


def load(folder: Path) -> DataSplits:
    """Read ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and their ``t10k`` twins, each perhaps ``.gz``.

    Raises
    ------
    InputError
        If a file is missing, damaged, or does not fit the others.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give mnist:DIR with the IDX files in DIR")
    train = _read_pair(folder, "train")
    test = _read_pair(folder, "t10k")
    count = int(train.labels.max()) + 1 if len(train) else 0
    if len(test) and test.labels.max() >= count:
        raise InputError(
            f"{folder}: a test label is {int(test.labels.max())}, training labels end at {count - 1}; they must agree"
        )
    return assemble(
        f"mnist:{folder}", train, test=test, classes=tuple(str(label) for label in range(count)), augment="shift"
    )


def _read_pair(folder: Path, part: str) -> Images:
    images_path = _find(folder, f"{part}-images-idx3-ubyte")
    labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
    images = read_idx(images_path, dimensions=3)
    labels = read_idx(labels_path, dimensions=1)
    if len(images) != len(labels):
        raise InputError(
            f"{images_path} has {len(images)} images, {labels_path.name} has {len(labels)} labels; they must be as many"
        )
    return Images(images=images[:, None], labels=labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    # The dotted form is how some mirrors name the same files.
    stems = (name, name.replace("-idx", ".idx"))
    for candidate in (folder / f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz")):
        if candidate.is_file():
            return candidate
    raise InputError(f"{folder} has no {name} (nor {name}.gz); give mnist:DIR with the four IDX files in DIR")
