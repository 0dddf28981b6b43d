"""``sparseplan measure``: time kernels on given problems."""

from __future__ import annotations

from pathlib import Path

from ..kernels.documents import read_records, require_writable, write_records
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.registry import REGISTRY
from ..kernels.spec import Device
from ..profiles.measure_problems import measure_problems
from ..profiles.measure_schema import MeasureRecord
from ..profiles.stopwatch import stopwatch_of
from .profile import machine_of_device, usable_threads


def measure(
    problems: str | Path,
    out: str | Path,
    *,
    kernel: str = "auto",
    threads: int | None = None,
    device: Device = "cpu",
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
    device : {"cpu", "cuda"}
        Where they run; on a GPU times are those of replayed graphs, with a warm cache.

    Raises
    ------
    InputError
        If a file cannot be read or written, or threads are asked for on a GPU.
    UnsupportedError
        If the device is not there.
    """
    machine = machine_of_device(device, threads)
    source = Path(problems)
    require_writable(Path(out))
    records = tuple(
        measure_problems(
            read_records(source, Problem, kind="problem"),
            kernel=kernel,
            machine=machine,
            registry=REGISTRY,
            folder=source.parent,
            threads=None if threads is None else usable_threads(threads),
            watch=stopwatch_of(device),
            progress=progress,
        )
    )
    write_records(Path(out), records)
    return records
