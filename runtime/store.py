"""The measurements of a run folder on disk."""

from __future__ import annotations

from pathlib import Path

from ..kernels.documents import read_document, write_document
from .schema import Measurements


def save_measurements(path: Path, measurements: Measurements) -> None:
    """Write ``measurements.json``, atomically."""
    write_document(path, measurements)


def load_measurements(path: Path) -> Measurements:
    """Read ``measurements.json``.

    Raises
    ------
    InputError
        If the file is missing or not such a document.
    """
    return read_document(path, Measurements, kind="measurements file (made by 'sparseplan bench')")
