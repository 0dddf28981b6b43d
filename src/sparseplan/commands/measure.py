"""``sparseplan measure``: time kernels on given problems."""

from __future__ import annotations

from pathlib import Path

from ..kernels.cpu import detect_machine
from ..kernels.documents import read_records, require_writable, write_records
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.registry import REGISTRY
from ..profiles.measure_problems import measure_problems
from ..profiles.measure_schema import MeasureRecord
from .profile import usable_threads


def measure(
    problems: str | Path,
    out: str | Path,
    *,
    kernel: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
) -> tuple[MeasureRecord, ...]:
    """Time kernels on problems, after checking their results against the reference.

    Parameters
    ----------
    problems : path
        One JSON problem a line (`.jsonl`); files named by `weights` are looked up beside it.
    out : path
        One JSON record a line.
    kernel : str
        ``auto`` (the one that select() picks), ``all`` that are eligible, or the name of one.
    threads : int, optional
        Overrides the thread count of every problem.
    """
    source = Path(problems)
    require_writable(Path(out))
    records = tuple(
        measure_problems(
            read_records(source, Problem, kind="problem"),
            kernel=kernel,
            machine=detect_machine(),
            registry=REGISTRY,
            folder=source.parent,
            threads=None if threads is None else usable_threads(threads),
            progress=progress,
        )
    )
    write_records(Path(out), records)
    return records
