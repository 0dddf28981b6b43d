"""A folder of image folders: ``train/CLASS/*`` and ``test/CLASS/*``, ``val/CLASS/*`` or both."""

from __future__ import annotations

from pathlib import Path

from ..kernels.errors import InputError
from ..kernels.progress import Progress, silent
from ..trainer.data import Augment, DataSplits
from .assemble import Normalisation, assemble
from .image_tree import read_image_tree


def load(root: Path, *, progress: Progress = silent) -> DataSplits:
    """Read all images, which must be of one size, as RGB; classes are the folders' names in alphabetical order.

    With ``test/`` and ``val/``, ``val/`` validates. With one of them, it is the test data, and a tenth of each training
    class validates.

    Raises
    ------
    InputError
        If a folder is missing or empty, an image is damaged or of another size, or the whole does not fit in memory.
    """
    return load_tree(root, name=f"imagefolder:{root}", normalisation=None, augment="none", progress=progress)


def load_tree(
    root: Path, *, name: str, normalisation: Normalisation | None, augment: Augment, progress: Progress
) -> DataSplits:
    """Splits of a tree of images; see `load` for the layout and `assemble` for the rest."""
    tree = read_image_tree(root, progress=progress)
    test = tree.parts.get("test") or tree.parts.get("val")
    if test is None:
        raise InputError(f"{root} has no test/CLASS or val/CLASS folders with images; the final figure needs them")
    return assemble(
        name,
        tree.parts["train"],
        test=test,
        validation=tree.parts.get("val") if "test" in tree.parts else None,
        classes=tree.classes,
        normalisation=normalisation,
        augment=augment,
    )
