"""Plans as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..kernels.documents import read_document, write_document
from .schema import Plan


def save_plan(path: Path, plan: Plan) -> None:
    """Write a plan as JSON, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_document(path, plan)


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises
    ------
    InputError
        If the file is missing, truncated, no plan, or of a newer schema version.
    """
    return read_document(path, Plan, kind="plan", migrations={1: _from_1})


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 knows widths that layers share; before, every layer kept its own."""
    layers = [
        {**layer, "full_problem": {**layer["problem"], "pattern": "dense", "sparsity": 0.0}}
        for layer in content["layers"]
    ]
    return {**content, "schema_version": 2, "layers": layers}
