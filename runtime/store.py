"""What was measured, on disk: of a run folder, and of the rounds in which a plan was corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..kernels.documents import read_document, write_document
from .schema import LoopReport, Measurements, StoredLayers, StoredTake


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
    return read_document(
        path, Measurements, kind="measurements file (made by 'sparseplan bench')", migrations={1: _to_version_2}
    )


def save_take(path: Path, stored: StoredTake) -> None:
    """Write what one process measured, atomically."""
    write_document(path, stored)


def load_take(path: Path) -> StoredTake:
    """Read what one process measured.

    Raises
    ------
    InputError
        If the file is missing or not such a document.
    """
    return read_document(path, StoredTake, kind="take (made by 'sparseplan bench')")


def save_layers(path: Path, stored: StoredLayers) -> None:
    """Write what one process measured of the layers, atomically."""
    write_document(path, stored)


def load_layers(path: Path) -> StoredLayers:
    """Read what one process measured of the layers.

    Raises
    ------
    InputError
        If the file is missing or not such a document.
    """
    return read_document(path, StoredLayers, kind="times of layers (made by 'sparseplan bench')")


def save_loop(path: Path, report: LoopReport) -> None:
    """Write what the rounds of ``sparseplan tune`` found, atomically."""
    write_document(path, report)


def load_loop(path: Path) -> LoopReport:
    """Read what the rounds of ``sparseplan tune`` found.

    Raises
    ------
    InputError
        If the file is missing or not such a document.
    """
    return read_document(path, LoopReport, kind="report of 'sparseplan tune'", migrations={1: _loop_to_version_2})


def _loop_to_version_2(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 did not call a target infeasible, and at first did not say which round it kept: the fastest."""
    planned_s = [each["measured_planned_s"] for each in content["rounds"]]
    kept = content.get("kept")
    return {**content, "schema_version": 2, "kept": planned_s.index(min(planned_s)) if kept is None else kept}


def _to_version_2(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 was measured by one process, which noted no clock."""
    return {**content, "schema_version": 2, "processes": 1, "clock_hz": []}
