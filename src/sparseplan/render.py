"""Results as a person reads them in a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from .reports.format import ceiling_value, duration, memory, percent, seconds, seconds_with_range, with_prefix

if TYPE_CHECKING:
    from .kernels.problem import Problem
    from .perfmodel.schema import NetworkTermsSummary, PredictionRecord, ProfileSummary, Quality, Validation
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
            shown = [ceiling_value(ceiling, value) for value in (ceiling.value, ceiling.low, ceiling.high)]
            table.add_row(ceiling.name, shown[0], f"{shown[1]} to {shown[2]}", ceiling.source)
    noisy = sum(sample.noisy for sample in profile.samples)
    head = (
        f"{profile.fingerprint.cpu_model}, {profile.threads} threads, {', '.join(profile.fingerprint.isa)}\n"
        f"{len(profile.samples)} kernel timings ({noisy} noisy) in {seconds(profile.duration_s)}"
    )
    return f"{head}\n{_text(table)}\nProfile: {path}"


def render_summary(summary: ProfileSummary, path: Path) -> str:
    """A whole profile in some tables: machine, ceilings by thread count, kernels by family, what lies between."""
    machine = summary.fingerprint
    caches = f"L1d {memory(machine.l1d_bytes)}, L2 {memory(machine.l2_bytes)} a core, L3 {memory(machine.l3_bytes)}"
    clock = summary.clock_spread_frac
    head = [
        f"{machine.cpu_model}: {machine.cores_usable} of {machine.cores_physical} cores usable, {caches}, "
        f"memory {memory(machine.memory_bytes)}, GPU {machine.gpu_model or 'none'}",
        f"{', '.join(machine.isa)}; {machine.operating_system}; Python {machine.python_version}, "
        f"torch {machine.torch_version}, sparseplan {machine.sparseplan_version}",
        f"Budget {summary.budget}, {summary.threads} threads, made {summary.created:%Y-%m-%d %H:%M} in "
        f"{duration(summary.duration_s)}",
        f"Stability: the arithmetic peak drifted by {percent(summary.drift_frac)} during the run, the clock strays by "
        f"{'unknown' if clock is None else percent(clock)}, {percent(summary.noisy_frac)} of the timings are noisy",
    ]
    counts = sorted({ceiling.threads for ceiling in summary.ceilings})
    ceilings = _table("ceiling", *(f"{count} thread{'s' if count > 1 else ''}" for count in counts))
    found = {(ceiling.name, ceiling.threads): ceiling for ceiling in summary.ceilings}
    for name in dict.fromkeys(ceiling.name for ceiling in summary.ceilings):
        cells = [found.get((name, count)) for count in counts]
        ceilings.add_row(name, *("" if cell is None else ceiling_value(cell, cell.value) for cell in cells))
    layers = list(dict.fromkeys(each.layer for family in summary.families for each in family.break_even))
    families = _table("kernel family", "n", "noisy", "held-out error", "pattern", *layers)
    for family in summary.families:
        bounds = {each.layer: each.sparsity for each in family.break_even}
        families.add_row(
            family.family,
            str(family.samples),
            str(family.noisy),
            "-" if family.held_out_error_frac is None else percent(family.held_out_error_frac),
            family.pattern,
            *(_break_even(bounds, layer) for layer in layers),
        )
    between = _table("between layers", "n", "smallest", "largest", "rate of the largest")
    for each in summary.elementwise:
        between.add_row(
            each.operation,
            str(each.samples),
            f"{memory(round(each.smallest_bytes))} in {seconds(each.smallest_s)}",
            memory(round(each.largest_bytes)),
            with_prefix(each.largest_byte_per_s, "B/s"),
        )
    note = (
        "Layers: the sparsity from which the family's best kernel is predicted to beat the best dense one of its dtype."
    )
    tables = [*head, "", _text(ceilings), "", _text(families), note, "", _text(between), "", *_network(summary.network)]
    return "\n".join([*tables, f"Profile: {path}"])


def _network(terms: NetworkTermsSummary) -> list[str]:
    head = (
        f"A compiled network adds ({terms.source}): {seconds(terms.call_s)} a pass, {seconds(terms.layer_s)} a dense "
        f"layer, {seconds(terms.kind_s)} a different one, {percent(terms.refetch_frac)} of the wait for weights beyond "
        f"the caches and {percent(terms.handover_frac)} of that assumed for what other cores had; what lies between "
        f"layers takes {terms.between_scale:.2f} times what it takes by itself"
    )
    networks = _table("network", "measured", "fitted")
    for each in terms.networks:
        shape = "x".join(map(str, each.input_shape))
        networks.add_row(f"{each.model} {shape}", seconds(each.measured_s), seconds(each.fitted_s))
    return [head, *([_text(networks)] if terms.networks else [])]


def _break_even(bounds: Mapping[str, float | None], layer: str) -> str:
    if layer not in bounds:
        return ""
    bound = bounds[layer]
    return "never" if bound is None else percent(bound)


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
    """The model family by family (last: its baselines' median errors), all families together, and whole networks."""
    from .perfmodel.judge import EVERYTHING, MODEL

    errors = ("median", "mean", "bias", "≤ 5 %", "≤ 10 %")
    figures = ("n", *errors, "rank", "in interval", "width", "decisions", "regret")
    rivals = tuple(dict.fromkeys(row.predictor for row in validation.qualities if row.predictor != MODEL))
    families = _table("family", *figures, *rivals)
    total = _table("all families", *figures)
    for column in (families.columns[0], families.columns[1 + figures.index("decisions")]):
        column.no_wrap = True
    medians = {(row.family, row.predictor): row.quality.median_error_frac for row in validation.qualities}
    for row in validation.qualities:
        if row.family == EVERYTHING:
            total.add_row(row.predictor, *_quality_cells(row.quality))
        elif row.predictor == MODEL:
            others = (_rounded(medians[row.family, name]) for name in rivals)
            families.add_row(row.family, *_quality_cells(row.quality), *others)
    networks = _table("network", "predicted (90 %)", "measured", "host", "error")
    for network in validation.networks:
        networks.add_row(
            f"{network.model} {'x'.join(map(str, network.input_shape))}",
            seconds_with_range(network.predicted_s),
            seconds_with_range(network.time_s),
            network.host,
            percent(network.error_frac),
        )
    return f"{_text(families)}\n{_text(total)}\n{_text(networks)}\nValidation: {path}"


def _quality_cells(quality: Quality) -> tuple[str, ...]:
    decided = quality.decisions_right_frac
    return (
        str(quality.predictions),
        _rounded(quality.median_error_frac),
        _rounded(quality.mean_error_frac),
        _rounded(quality.bias_frac),
        _rounded(quality.within_5_frac),
        _rounded(quality.within_10_frac),
        "-" if quality.spearman is None else f"{quality.spearman:.3f}",
        _rounded(quality.coverage_frac),
        _rounded(quality.width_frac),
        "-" if decided is None else f"{_rounded(decided)} of {quality.decisions}",
        _rounded(quality.regret_frac),
    )


def _rounded(share: float | None) -> str:
    """Whole per cent from 10 % on: tables this wide have no room for more, and the figures are no surer."""
    if share is None:
        return "-"
    return percent(share) if abs(share) < 0.1 else f"{100.0 * share:.0f} %".replace("-", "−")


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
        table.add_column(column, overflow="fold", no_wrap=column in ("kernel", "kernel family"))
    return table


def _text(table: Table) -> str:
    console = Console(file=StringIO(), width=max(shutil.get_terminal_size().columns, _MIN_WIDTH))
    console.print(table)
    output = console.file
    assert isinstance(output, StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()).strip("\n")
