"""Plans as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..kernels.documents import read_document, write_document
from .schema import Plan


def _to_2(content: dict[str, Any]) -> dict[str, Any]:
    """Version 1 filed the limits of sparsity under the kernel alone, for the choice or the fastest one considered.

    It knew no widths that layers share: every layer kept its own. Sizes, the front and databases of pruned layers,
    which version 2 also brought, may all be missing.
    """
    layers = []
    for layer in content["layers"]:
        by_time = sorted(layer["considered"], key=lambda candidate: candidate["time_s"]["median"])
        ways: dict[str, str] = {}
        for candidate in (layer["chosen"], *by_time):
            if candidate["pattern"] != "dense":
                ways.setdefault(candidate["kernel"], f"{candidate['pattern']} on {candidate['kernel']}")
        limits = {
            name: {ways.get(kernel, kernel): value for kernel, value in layer[name].items()}
            for name in ("break_even_sparsity", "useful_sparsity")
        }
        full = layer["problem"] | {"pattern": "dense", "sparsity": 0.0}
        layers.append(layer | limits | {"full_problem": full})
    return content | {"schema_version": 2, "layers": layers}


def _to_3(content: dict[str, Any]) -> dict[str, Any]:
    """Version 2 did not say which patterns no kernel can use."""
    return content | {"schema_version": 3}


MIGRATIONS = {1: _to_2, 2: _to_3}


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
    return read_document(path, Plan, kind="plan", migrations=MIGRATIONS)
