"""CIFAR-10: the standard binary batches, or images in folders or in a tar archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..kernels.errors import InputError, UnsupportedError
from ..kernels.progress import Progress, silent
from ..trainer.data import DataSplits
from .assemble import Images, Normalisation, assemble
from .image_files import is_archive
from .imagefolder import load_tree

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The standard order, which is alphabetical too."""

NORMALISATION = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""ImageNet's constants (He et al., CVPR 2016, via torchvision); the published CIFAR ResNet weights were trained so."""

JPEG_ARCHIVE = "cifar10-jpeg.tar.gz"
_TRAIN_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST_BATCH = "test_batch.bin"
_RECORD_BYTES = 1 + 3 * 32 * 32


def load(root: Path, *, progress: Progress = silent) -> DataSplits:
    """Read CIFAR-10 from what lies at `root`.

    Parameters
    ----------
    root : Path
        A folder with ``data_batch_1.bin`` ... and ``test_batch.bin`` (or with ``cifar-10-batches-bin``, which has
        them); a folder with ``train/CLASS/*`` and ``test/CLASS/*``; a tar archive of the latter, or a folder with
        ``cifar10-jpeg.tar.gz``.

    Raises
    ------
    InputError
        If none of these is there, or it is damaged.
    UnsupportedError
        If only Python's pickled batches are there: a pickle can run any program, so none is opened.
    """
    name = f"cifar10:{root}"
    binary = _first_with(root, "cifar-10-batches-bin", _TRAIN_BATCHES[0])
    if binary is not None:
        return _load_binary(binary, name)
    tree = _find_tree(root)
    return load_tree(tree, name=name, normalisation=NORMALISATION, augment="crop_flip", progress=progress)


def _first_with(root: Path, subfolder: str, file_name: str) -> Path | None:
    """`root` or its subfolder, whichever holds the file."""
    return next((folder for folder in (root, root / subfolder) if (folder / file_name).is_file()), None)


def _find_tree(root: Path) -> Path:
    if (root.is_file() and is_archive(root)) or (root / "train").is_dir():
        return root
    if (root / JPEG_ARCHIVE).is_file():
        return root / JPEG_ARCHIVE
    pickled = _first_with(root, "cifar-10-batches-py", "data_batch_1")
    if pickled is not None:
        raise UnsupportedError(
            f"{pickled} holds the Python version of CIFAR-10, whose pickles could run any program and are not opened; "
            "get the binary version (cifar-10-binary.tar.gz), unpack it and give that folder"
        )
    what = "holds no CIFAR-10" if root.is_dir() else "is no folder and no tar archive"
    raise InputError(
        f"{root} {what}; give cifar10:DIR with data_batch_1.bin ... test_batch.bin, with train/CLASS/*.jpg and "
        f"test/CLASS/*.jpg, or with {JPEG_ARCHIVE}"
    )


def _load_binary(folder: Path, name: str) -> DataSplits:
    batches = [_read_batch(folder / batch) for batch in _TRAIN_BATCHES]
    train = Images(
        images=np.concatenate([batch.images for batch in batches]),
        labels=np.concatenate([batch.labels for batch in batches]),
    )
    return assemble(
        name,
        train,
        test=_read_batch(folder / _TEST_BATCH),
        classes=CLASSES,
        normalisation=NORMALISATION,
        augment="crop_flip",
    )


def _read_batch(path: Path) -> Images:
    """One file of records: a label byte, then 32x32 bytes of red, of green, of blue."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; the binary version has five batches and a test batch"
        ) from None
    if not content or len(content) % _RECORD_BYTES:
        raise InputError(
            f"{path} has {len(content)} bytes, not a whole number of records of {_RECORD_BYTES}; get the file again"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD_BYTES)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= len(CLASSES):
        raise InputError(f"{path} has a label {int(labels.max())}; CIFAR-10 has labels 0 to {len(CLASSES) - 1}")
    return Images(images=records[:, 1:].reshape(-1, 3, 32, 32), labels=labels)
