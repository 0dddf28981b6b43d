"""How long work tells how far it is; the command line draws it, with the time left."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with the stage's name and how much of it is done."""

    def __call__(self, stage: str, done: float, total: float) -> None: ...


def silent(stage: str, done: float, total: float) -> None:
    """Progress that nobody watches."""
