"""``sparseplan explain``: why a layer got what it got, and what would change it."""

from __future__ import annotations

from pathlib import Path

from ..planner.explain import explain as explain_plan
from ..planner.store import load_plan


def explain(plan: str | Path, layer: str | None = None) -> str:
    """Explain a whole plan, or one layer of it, in plain text.

    Raises
    ------
    InputError
        If the file is not a plan, or it has no such layer.
    """
    return explain_plan(load_plan(Path(plan)), layer)
