"""From a data SPEC to data in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .kernels.errors import InputError
from .kernels.progress import Progress, silent
from .user_code import call_user_code, parse_user_code

if TYPE_CHECKING:
    from .trainer.data import DataSplits

FORMS = "digits, mnist:DIR, cifar10:DIR, imagefolder:DIR, path/file.py:callable or package.module:callable"
_FOLDER_SCHEMES = ("mnist", "cifar10", "imagefolder")


def load_data(spec: str, *, progress: Progress = silent) -> DataSplits:
    """Read the data that a SPEC names: training, validation and test images in memory.

    Validation images come from the training data (a tenth of each class, the same at every call); test data is never
    part of a decision.

    Parameters
    ----------
    spec : str
        ``digits``, ``mnist:DIR`` (IDX files, also Fashion-MNIST), ``cifar10:DIR`` (binary batches, image folders or
        their tar archive), ``imagefolder:DIR``, ``path/file.py:callable`` or ``package.module:callable``; a callable
        takes no arguments. User code is run only in the last two forms.
    progress : Progress
        Told while many images are decoded.

    Raises
    ------
    InputError
        If the SPEC has none of these forms, or what it names is missing, empty, damaged or inconsistent.
    UnsupportedError
        If the data is in a form that is not opened (pickles).
    """
    scheme, colon, rest = spec.partition(":")
    if spec == "digits":
        from .data import digits

        return digits.load()
    if scheme == "digits":
        raise InputError(f"data {spec!r}: digits takes no folder; give digits")
    if scheme in _FOLDER_SCHEMES:
        if not (colon and rest):
            raise InputError(f"data {spec!r} names no folder; give {scheme}:DIR")
        return _load_folder(scheme, Path(rest).expanduser(), progress)
    code = parse_user_code(spec)
    if code is None:
        raise InputError(f"unknown data {spec!r}; give {FORMS}")
    from .data import user_data

    return user_data.from_user(call_user_code(code, returns=user_data.RETURNS), spec)


def _load_folder(scheme: str, root: Path, progress: Progress) -> DataSplits:
    if scheme == "mnist":
        from .data import mnist

        return mnist.load(root)
    if scheme == "cifar10":
        from .data import cifar10

        return cifar10.load(root, progress=progress)
    from .data import imagefolder

    return imagefolder.load(root, progress=progress)
