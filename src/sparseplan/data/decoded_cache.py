"""Decoded images kept in the user's cache folder, so that only the first use of a data set decodes it.

A cache is a convenience: whatever goes wrong with it, the images are decoded again.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels.documents import write_atomic
from ..kernels.errors import InputError

_UNREADABLE = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)
_KEY = "key"


def cache_path(root: Path) -> Path:
    """File that holds the decoded images of the data set at `root`: one a data set, replaced when that changes."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) if base else Path("~/.cache").expanduser()
    name = sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return folder / "sparseplan" / f"images-{name}.npz"


def load_cached(root: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays stored for `root` under `key`, or None where there are none or the file is damaged."""
    try:
        # Of a damaged file that it opened itself, load would leave the handle open.
        with cache_path(root).open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if str(stored[_KEY]) != key:
                return None
            return {name: stored[name] for name in stored.files if name != _KEY}
    except _UNREADABLE:
        return None


def store_cached(root: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep arrays for `load_cached`; a folder that cannot be written is passed over."""
    path = cache_path(root)
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: _write(temporary, key, arrays))


def _write(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    # Any: before numpy 2.1 savez has no allow_pickle, and would store that keyword as one array more.
    stored: dict[str, Any] = {_KEY: np.array(key), **arrays}
    # Through a handle: given a path, savez would append its own suffix.
    with path.open("wb") as file:
        np.savez(file, **stored)
