"""Machine profiles on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..kernels.documents import read_document, write_document
from .plausible import require_plausible
from .schema import MachineProfile

KIND = "machine profile"


def _without_stability(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 did not watch whether the machine drifts."""
    return content | {"schema_version": 2, "stability": []}


def _with_loads_alone(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 measured no stores, copies, clock or timer: ceilings that a profile may lack."""
    return content | {"schema_version": 3}


def _of_the_cpu_without_networks(content: dict[str, Any]) -> dict[str, Any]:
    """Version 3 measured no whole networks, and was of CPUs alone; what it held of a GPU beside them is left out."""
    kept = [ceiling for ceiling in content["ceilings"] if ":cuda:" not in ceiling["name"]]
    return content | {"schema_version": 4, "device": "cpu", "ceilings": kept, "networks": []}


MIGRATIONS = {1: _without_stability, 2: _with_loads_alone, 3: _of_the_cpu_without_networks}


def save_profile(path: Path, profile: MachineProfile) -> None:
    """Write a profile as JSON, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_document(path, profile)


def load_profile(path: Path) -> MachineProfile:
    """Read a profile and check that its numbers can be those of a real machine.

    Raises
    ------
    InputError
        If the file is missing, truncated, of another kind, of a newer schema version, or holds absurd numbers.
    """
    profile = read_document(path, MachineProfile, kind=KIND, migrations=MIGRATIONS)
    require_plausible(profile, str(path))
    return profile
