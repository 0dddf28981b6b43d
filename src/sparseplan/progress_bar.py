"""Draw progress with the time left on the terminal; one line a finished stage where there is none."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """A `kernels.progress.Progress` for the command line; writes to standard error."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._stage: str | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: float, total: float) -> None:
        if stage != self._stage:
            self._begin(stage, total)
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def _begin(self, stage: str, total: float) -> None:
        """One bar at a time: stages that are over leave a line, so that a long job does not outgrow the screen."""
        if self._task is not None:
            finished = next(task for task in self._bar.tasks if task.id == self._task)
            self._console.print(f"{self._stage}: {finished.elapsed or 0.0:.1f} s", highlight=False)
            self._bar.remove_task(self._task)
        self._stage = stage
        if self._console.is_terminal:
            self._task = self._bar.add_task(stage, total=total)
        else:
            self._console.print(stage, highlight=False)
