"""Results as a person reads them in a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from .reports.format import percent, seconds, seconds_with_range, with_prefix

if TYPE_CHECKING:
    from .kernels.problem import Problem
    from .perfmodel.schema import PredictionRecord, Validation
    from .planner.schema import Plan
    from .profiles.measure_schema import MeasureRecord
    from .profiles.schema import MachineProfile
    from .runtime.schema import LoopReport, Measurements
    from .trainer.schema import TrainingHistory

_MIN_WIDTH = 150


def render_profile(profile: MachineProfile, path: Path) -> str:
    """Identity and ceilings of a machine, and where the profile lies."""
    table = _table("ceiling", "value", "interval", "source")
    for ceiling in profile.ceilings:
        if ceiling.threads == profile.threads:
            unit = ceiling.unit
            shown = [
                seconds(v) if unit == "s" else with_prefix(v, unit) for v in (ceiling.value, ceiling.low, ceiling.high)
            ]
            table.add_row(ceiling.name, shown[0], f"{shown[1]} to {shown[2]}", ceiling.source)
    noisy = sum(sample.noisy for sample in profile.samples)
    head = (
        f"{profile.fingerprint.cpu_model}, {profile.threads} threads, {', '.join(profile.fingerprint.isa)}\n"
        f"{len(profile.samples)} kernel timings ({noisy} noisy) in {seconds(profile.duration_s)}"
    )
    return f"{head}\n{_text(table)}\nProfile: {path}"


def render_measured(records: Iterable[MeasureRecord]) -> str:
    """One line a problem and kernel: time, useful work a second, error."""
    table = _table("problem", "kernel", "time", "useful", "dense-equivalent", "rel. error")
    for record in records:
        if record.time_s is None:
            table.add_row(describe(record.problem), "-", record.reason or "", "", "", "")
            continue
        rates = [
            with_prefix(flop / record.time_s.median, "flop/s") for flop in (record.flop_useful, record.flop_dense_equiv)
        ]
        table.add_row(
            describe(record.problem),
            record.kernel,
            seconds_with_range(record.time_s),
            *rates,
            f"{record.rel_error:.1e}",
        )
    return _text(table)


def render_predicted(records: Iterable[PredictionRecord]) -> str:
    """One line a problem and kernel: predicted time with its 90 % interval, and what binds it."""
    table = _table("problem", "kernel", "predicted time (90 %)", "bound by", "note")
    for record in records:
        if record.time_s is None:
            table.add_row(describe(record.problem), "-", "-", "-", record.reason or "")
            continue
        note = "outside the measured range" if record.extrapolated else ""
        time_s = seconds_with_range(record.time_s)
        table.add_row(describe(record.problem), record.kernel, time_s, record.binding_resource, note)
    return _text(table)


def render_validation(validation: Validation, path: Path) -> str:
    """The model beside its baselines, family by family, and whole networks."""
    errors = ("median", "mean", "within 5 %", "within 10 %")
    table = _table("family", "predictor", "n", *errors, "rank", "in interval", "decisions", "regret")
    for row in validation.qualities:
        q = row.quality
        decided = "-" if q.decisions_right_frac is None else f"{percent(q.decisions_right_frac)} of {q.decisions}"
        numbers = (q.median_error_frac, q.mean_error_frac, q.within_5_frac, q.within_10_frac)
        table.add_row(
            row.family,
            row.predictor,
            str(q.predictions),
            *("-" if number is None else percent(number) for number in numbers),
            "-" if q.spearman is None else f"{q.spearman:.3f}",
            "-" if q.coverage_frac is None else percent(q.coverage_frac),
            decided,
            "-" if q.regret_frac is None else percent(q.regret_frac),
        )
    networks = _table("network", "predicted (90 %)", "measured", "host", "error")
    for network in validation.networks:
        networks.add_row(
            f"{network.model} {'x'.join(map(str, network.input_shape))}",
            seconds_with_range(network.predicted_s),
            seconds_with_range(network.time_s),
            network.host,
            percent(network.error_frac),
        )
    return f"{_text(table)}\n{_text(networks)}\nValidation: {path}"


def render_history(history: TrainingHistory, run: Path) -> str:
    """What training did to the accuracy."""
    table = _table("", "validation accuracy", "test accuracy")
    before = history.dense_validation_accuracy_frac
    table.add_row("dense", "-" if before is None else percent(before), percent(history.dense_test_accuracy_frac))
    table.add_row("planned", percent(history.validation_accuracy_frac), percent(history.test_accuracy_frac))
    epochs = len(history.epochs)
    return f"{_text(table)}\n{epochs} epochs in {seconds(history.duration_s)}; run folder: {run}"


def render_measurements(measurements: Measurements, plan: Plan) -> str:
    """Dense against planned: the table that a run is about, and the verdict."""
    from .reports.tables import headline_table

    table = _table("", "accuracy", "measured time", "predicted time", "speedup")
    for row in headline_table(measurements, plan):
        table.add_row(row.name, row.accuracy, row.measured_time, row.predicted_time, row.speedup)
    return f"{_text(table)}\n{measurements.verdict}"


def render_loop(report: LoopReport) -> str:
    """Each round of a closed loop: predicted beside measured, and where the difference lies."""
    table = _table("round", "dense", "planned", "predicted", "layers explain", "rest", "lost layers", "speedup")
    for number, each in enumerate(report.rounds, start=1):
        table.add_row(
            str(number),
            seconds(each.measured_dense_s),
            seconds(each.measured_planned_s),
            seconds(each.predicted_planned_s),
            f"{each.explained_s * 1e3:+.2f} ms",
            f"{each.unexplained_s * 1e3:+.2f} ms",
            f"{sum(layer.reverted for layer in each.layers)} of {len(each.layers)}",
            f"{each.speedup:.2f}×",
        )
    return f"{_text(table)}\n{report.verdict}"


def describe(problem: Problem) -> str:
    """A problem in one short line."""
    sparsity = "" if problem.pattern == "dense" else f" {percent(problem.sparsity)}"
    if problem.op == "linear":
        work = f"linear {problem.c_in}->{problem.c_out}"
    else:
        kernel = "x".join(map(str, problem.kernel))
        stride = "" if problem.stride == (1, 1) else f"/{problem.stride[0]}"
        groups = "" if problem.groups == 1 else f" g{problem.groups}"
        work = f"conv {kernel}{stride} {problem.c_in}->{problem.c_out}{groups} {problem.h_in}x{problem.w_in}"
    return f"{work} n{problem.n} {problem.dtype} {problem.pattern}{sparsity}"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        # Names are what a reader copies: they stay whole.
        table.add_column(column, overflow="fold", no_wrap=column == "kernel")
    return table


def _text(table: Table) -> str:
    console = Console(file=StringIO(), width=max(shutil.get_terminal_size().columns, _MIN_WIDTH))
    console.print(table)
    output = console.file
    assert isinstance(output, StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()).strip("\n")
