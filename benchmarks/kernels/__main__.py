"""Measure, print each layer as it is done, keep what there is in a CSV file, and draw the plots."""

from __future__ import annotations

import sys
import time
from itertools import groupby
from pathlib import Path

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import SparseplanError

from .cases import Case, cases_of
from .contest import run_case, setting_of, untimed
from .layer_sets import LAYER_SETS
from .options import Options, parse_options
from .plot import write_plots
from .rivals import CONTESTANTS
from .roofline import measure_limits
from .table import case_text, means_text, read_csv, write_csv, write_means

INTERRUPTED = 130


def main() -> int:
    options = parse_options()
    if options.only_list:
        _list()
        return 0
    try:
        return _run(options)
    except SparseplanError as error:
        print(f"benchmarks.kernels: error: {error}", file=sys.stderr)
        return 2


def _list() -> None:
    print("layer sets")
    for layers in LAYER_SETS:
        count = layers.why_absent or f"{len(layers.make())} layers"
        print(f"  {layers.name:<16} {layers.about} ({count})")
    print("kernels")
    for kernel in CONTESTANTS:
        print(f"  {kernel.name:<44} {', '.join(kernel.patterns)}")


def _run(options: Options) -> int:
    machine = detect_machine()
    present = [layers for layers in options.sets if layers.why_absent is None]
    for layers in options.sets:
        if layers.why_absent is not None:
            print(f"left out: {layers.name} ({layers.why_absent})")
    cases = list(cases_of(present, options.grid))
    if not cases:
        print("nothing to measure: no layer set asked for has one of the patterns asked for")
        return 0
    _make_folder(options.out)
    csv = options.out / "kernels.csv"
    rows = read_csv(csv) if options.appends and csv.exists() else []
    measured = {setting_of(row) for row in rows}
    cases = [case for case in cases if setting_of(untimed(case)) not in measured]
    print(f"{len(cases)} cases; results go to {csv} after each layer, Ctrl-C keeps them; measuring the ceilings ...")
    limits = measure_limits(machine, max(options.grid.threads))
    interrupted = False
    clock = _Clock(cases, options.budget_s)
    try:
        for _, layer in groupby(cases, key=lambda case: (case.layer_set, case.layer)):
            for case in layer:
                print(_title(case, clock), flush=True)
                found = run_case(case, machine, limits, kernels=options.kernels, budget_s=options.budget_s)
                rows += found
                clock.tick(case)
                print(case_text(found), flush=True)
            write_csv(csv, rows)
    except KeyboardInterrupt:
        interrupted = True
        print(f"\ninterrupted after {clock.done} of {len(cases)} cases; keeping what was measured")
    if not rows:
        return INTERRUPTED
    write_csv(csv, rows)
    print(means_text(rows))
    averages = options.out / "means.csv"
    write_means(averages, rows)
    files = write_plots(options.out, rows)
    print("\n".join(f"wrote {path}" for path in (csv, averages, *files)))
    return INTERRUPTED if interrupted else 0


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SparseplanError(
            f"cannot make folder {folder}: {error.strerror}; give --out a path in a writable folder"
        ) from None


def _title(case: Case, clock: _Clock) -> str:
    problem = case.problem
    zeros = "its own weights" if problem.weights else f"{problem.sparsity:.0%} zeros"
    threads = f"{problem.threads} thread{'s' * (problem.threads > 1)}"
    return (
        f"[{clock}] {case.layer_set} {case.layer} batch {case.batch}, {threads}, {problem.dtype}, "
        f"{problem.pattern}, {zeros}"
    )


class _Clock:
    """How much is done, and the time left by the pace so far; a case counts by its budget and its dense work."""

    SLOW_FLOP_PER_S = 2e9
    """Of the slowest kernels, whose least number of samples takes longer than any budget."""

    def __init__(self, cases: list[Case], budget_s: float) -> None:
        self._budget_s = budget_s
        self._total = sum(self._weight(case) for case in cases)
        self._count = len(cases)
        self._start = time.monotonic()
        self._spent = 0.0
        self.done = 0

    def _weight(self, case: Case) -> float:
        return self._budget_s + case.problem.flop_dense_equiv / self.SLOW_FLOP_PER_S

    def tick(self, case: Case) -> None:
        self._spent += self._weight(case)
        self.done += 1

    def __str__(self) -> str:
        count = f"{self.done + 1}/{self._count}"
        if not self.done:
            return count
        left_s = (time.monotonic() - self._start) / self._spent * (self._total - self._spent)
        return f"{count}, about {left_s / 60:.0f} min left" if left_s >= 90 else f"{count}, about {left_s:.0f} s left"


if __name__ == "__main__":
    sys.exit(main())
