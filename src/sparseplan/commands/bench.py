"""``sparseplan bench``: dense against planned, alternating, end to end, in several fresh processes."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from ..data_spec import load_data
from ..kernels.dense import TORCH_DTYPES
from ..kernels.errors import InputError, SparseplanError
from ..kernels.pattern import parse_pattern
from ..kernels.progress import Progress, silent
from ..model_spec import load_model
from ..planner.reasons import OTHER_DENSE
from ..planner.schema import Plan
from ..planner.store import load_plan
from ..profiles.fingerprint import read_fingerprint
from ..runtime.compile import compile_model
from ..runtime.elsewhere import warn_if_planned_elsewhere
from ..runtime.fixed_batch import FixedBatch
from ..runtime.planned_machine import planned_machine
from ..runtime.pool_layers import in_doubt, pool_layers
from ..runtime.pool_takes import Pooled, pool_takes
from ..runtime.schema import LayerTime, Measurements, StoredTake
from ..runtime.store import load_layers, load_take, save_layers, save_measurements, save_take
from ..trainer.evaluate import device_of, evaluate
from ..trainer.planned_network import planned_network
from ..trainer.store import RunFolder, load_weights
from .bench_take import identity, measure_layers_of, measure_take

LAYERS_S = 15.0
"""Time for measuring all swapped layers, in the first process."""
LAYER_S = 0.5
"""Of one layer, in each further process, which measures those in doubt alone."""
BUDGET_S = 15.0
"""Time for measuring the networks in the first process; building them comes on top."""
LATER_BUDGET_S = 10.0
"""In each further one, where only those are measured that may win."""
PROCESSES = 3


def bench(run: str | Path, *, processes: int = PROCESSES, progress: Progress = silent) -> Measurements:
    """Measure a trained run: every swapped layer, then both networks under every host, then their accuracy.

    Layers that lose in measurement go back to dense; those that one process cannot judge are measured in several. Where
    the planned network is not faster beyond doubt, the verdict is to ship the dense one. Times move between processes
    by 5 to 15 %, so that one process says little of the next: the networks are measured in several. What an interrupted
    call measured is not measured again.

    Parameters
    ----------
    processes : int
        This one, and fresh ones after it.

    Raises
    ------
    InputError
        If the folder is not a finished run.
    UnsupportedError
        If the plan's kernels cannot run on this machine.
    """
    if processes < 1:
        raise InputError(f"--processes {processes}: allowed is 1 or more")
    folder = RunFolder(Path(run))
    plan = load_plan(folder.plan)
    machine = planned_machine(plan)
    manifest = folder.load_manifest()
    dense, masked = load_model(manifest.model), planned_network(load_model(manifest.model), plan)
    load_weights(dense, folder.dense_weights)
    load_weights(masked, folder.planned_weights)
    warn_if_planned_elsewhere(plan, machine)
    takes = [stored.take for stored in _takes(folder, processes, progress)]
    pooled, layers = pool_takes(takes), takes[0].layers
    data = load_data(manifest.data, progress=progress)
    batch = plan.input_shape[0]
    progress("measuring accuracy", 0, 2)
    compiled = compile_model(
        masked, plan, machine=machine, keep_dense=[layer.name for layer in layers if layer.reverted]
    )
    dense_accuracy = evaluate(dense.to(device_of(compiled)), data, data.test, batch_size=batch).accuracy_frac
    progress("measuring accuracy", 1, 2)
    dtype = TORCH_DTYPES[pooled.best_planned.dtype]
    planned = FixedBatch(compiled.to(dtype), batch=batch, dtype=dtype)
    planned_accuracy = evaluate(planned, data, data.test, batch_size=batch).accuracy_frac
    progress("measuring accuracy", 2, 2)
    measurements = Measurements(
        created=datetime.now(UTC),
        threads=plan.threads,
        fingerprint=read_fingerprint(machine),
        processes=processes,
        clock_hz=tuple(hz for each in takes for hz in each.clock_hz),
        networks=pooled.networks,
        layers=layers,
        best_dense=pooled.best_dense,
        best_planned=pooled.best_planned,
        speedup=pooled.speedup,
        predicted_dense_time_s=plan.totals.dense_time_s,
        predicted_planned_time_s=plan.totals.planned_time_s,
        dense_accuracy_frac=dense_accuracy,
        planned_accuracy_frac=planned_accuracy,
        output_error=max(each.output_error for each in takes),
        shipped="planned" if pooled.is_faster else "dense",
        verdict=_verdict(pooled, layers, plan),
    )
    save_measurements(folder.measurements, measurements)
    for number in range(processes):
        _take_path(folder, number).unlink(missing_ok=True)
        _layers_path(folder, number).unlink(missing_ok=True)
    return measurements


def _layers(folder: RunFolder, processes: int, progress: Progress) -> tuple[LayerTime, ...]:
    """All of them in this process, those in doubt also in fresh ones."""
    measured = identity(folder)
    fixed = [layer.name for layer in load_plan(folder.plan).layers if parse_pattern(layer.chosen.pattern).slots > 1]
    found: list[tuple[LayerTime, ...]] = []
    for number in range(processes):
        path = _layers_path(folder, number)
        known = load_layers(path) if path.exists() else None
        if known is None or known.measured != measured:
            if number == 0:
                save_layers(path, measure_layers_of(folder, names=None, budget_s=LAYERS_S, progress=progress))
            else:
                doubtful = in_doubt(found[0], fixed)
                if not doubtful:
                    break
                progress("measuring layers in doubt again", number - 1, processes - 1)
                _run_afresh(folder, path, len(doubtful) * LAYER_S, "--layers", *doubtful)
            known = load_layers(path)
        found.append(known.layers)
    return pool_layers(found, fixed)


def _takes(folder: RunFolder, processes: int, progress: Progress) -> list[StoredTake]:
    """The first in this process, which was started for it or never measured; the others in fresh ones."""
    measured = identity(folder)
    takes: list[StoredTake] = []
    for number in range(processes):
        path = _take_path(folder, number)
        known = load_take(path) if path.exists() else None
        if known is None or known.measured != measured:
            if number == 0:
                layers = _layers(folder, processes, progress)
                taken = measure_take(folder, layers=layers, budget_s=BUDGET_S, earlier=None, progress=progress)
                save_take(path, taken)
            else:
                progress("measuring in fresh processes", number - 1, processes - 1)
                _run_afresh(folder, path, LATER_BUDGET_S, "--earlier", str(_take_path(folder, 0)))
            known = load_take(path)
        takes.append(known)
    if processes > 1:
        progress("measuring in fresh processes", 1, 1)
    return takes


def _run_afresh(folder: RunFolder, out: Path, budget_s: float, *what: str) -> None:
    command = [sys.executable, "-m", f"{__package__}.bench_take", str(folder.path)]
    options = ["--budget-s", str(budget_s), "--out", str(out), *what]
    finished = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or [f"it ended with exit code {finished.returncode}"]
        raise SparseplanError(f"the process that measured {folder.path} again failed: {lines[-1]}")


def _layers_path(folder: RunFolder, number: int) -> Path:
    return folder.path / f"layers-{number + 1}.json"


def _take_path(folder: RunFolder, number: int) -> Path:
    return folder.path / f"take-{number + 1}.json"


def _verdict(pooled: Pooled, layers: tuple[LayerTime, ...], plan: Plan) -> str:
    speedup = pooled.speedup
    measured = f"{speedup.median:.2f}x (interval {speedup.low:.2f} to {speedup.high:.2f})"
    reverted = sum(layer.reverted for layer in layers)
    back = f"; {reverted} of {len(layers)} swapped layers lost and went back to dense" if reverted else ""
    others = {layer.name for layer in plan.layers if layer.chosen.other_dense}
    others -= {layer.name for layer in layers if layer.reverted}
    back += f"; {len(others)} layers run {OTHER_DENSE}" if others else ""
    if not layers:
        return "The plan leaves every layer dense: pruning is not worth it on this machine at this input shape."
    if not pooled.is_faster:
        return f"Keep the dense network: the planned one measures {measured} of its speed on this machine{back}."
    target = plan.target.speedup
    met = "" if target is None else f", target {target:g}x {'met' if speedup.median >= target else 'missed'}"
    return f"Ship the planned network: {measured} times the speed of the best dense one{met}{back}."
