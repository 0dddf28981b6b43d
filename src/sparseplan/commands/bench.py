"""``sparseplan bench``: dense against planned, alternating, end to end, in several fresh processes."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from ..data_spec import load_data
from ..kernels.cpu import detect_machine
from ..kernels.dense import TORCH_DTYPES
from ..kernels.errors import InputError, SparseplanError
from ..kernels.progress import Progress, silent
from ..model_spec import load_model
from ..planner.schema import Plan
from ..planner.store import load_plan
from ..profiles.fingerprint import read_fingerprint
from ..runtime.compile import compile_model
from ..runtime.elsewhere import warn_if_planned_elsewhere
from ..runtime.fixed_batch import FixedBatch
from ..runtime.pool_takes import Pooled, pool_takes
from ..runtime.schema import LayerTime, Measurements, StoredTake
from ..runtime.store import load_take, save_measurements, save_take
from ..trainer.evaluate import evaluate
from ..trainer.sas import network_of
from ..trainer.store import RunFolder, load_weights
from .bench_take import identity, measure_take

BUDGET_S = 30.0
"""Time for measuring layers and networks in the first process; building the networks comes on top."""
LATER_BUDGET_S = 20.0
"""In each further one, where half of it goes to the networks that may win and none to layers."""
PROCESSES = 3


def bench(run: str | Path, *, processes: int = PROCESSES, progress: Progress = silent) -> Measurements:
    """Measure a trained run: every swapped layer, then both networks under every host, then their accuracy.

    Layers that lose in measurement go back to dense. Where the planned network is not faster beyond doubt, the verdict
    is to ship the dense one. Times move between processes by 5 to 15 %, so that one process says little of the next:
    the networks are measured in several. What an interrupted call measured is not measured again.

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
    manifest = folder.load_manifest()
    dense, masked = load_model(manifest.model), network_of(load_model(manifest.model), plan)
    load_weights(dense, folder.dense_weights)
    load_weights(masked, folder.planned_weights)
    machine = detect_machine()
    warn_if_planned_elsewhere(plan, machine)
    takes = [stored.take for stored in _takes(folder, processes, progress)]
    pooled, layers = pool_takes(takes), takes[0].layers
    data = load_data(manifest.data, progress=progress)
    batch = plan.input_shape[0]
    progress("measuring accuracy", 0, 2)
    dense_accuracy = evaluate(dense, data, data.test, batch_size=batch).accuracy_frac
    progress("measuring accuracy", 1, 2)
    compiled = compile_model(
        masked, plan, machine=machine, keep_dense=[layer.name for layer in layers if layer.reverted]
    )
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
    return measurements


def _takes(folder: RunFolder, processes: int, progress: Progress) -> list[StoredTake]:
    """The first in this process, which was started for it or never measured; the others in fresh ones."""
    measured = identity(folder)
    takes: list[StoredTake] = []
    for number in range(processes):
        path = _take_path(folder, number)
        known = load_take(path) if path.exists() else None
        if known is None or known.measured != measured:
            if number == 0:
                save_take(path, measure_take(folder, budget_s=BUDGET_S, earlier=None, progress=progress))
            else:
                progress("measuring in fresh processes", number - 1, processes - 1)
                _measure_afresh(folder, _take_path(folder, 0), path)
            known = load_take(path)
        takes.append(known)
    if processes > 1:
        progress("measuring in fresh processes", 1, 1)
    return takes


def _measure_afresh(folder: RunFolder, earlier: Path, out: Path) -> None:
    command = [sys.executable, "-m", f"{__package__}.bench_take", str(folder.path)]
    options = ["--budget-s", str(LATER_BUDGET_S), "--earlier", str(earlier), "--out", str(out)]
    finished = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or [f"it ended with exit code {finished.returncode}"]
        raise SparseplanError(f"the process that measured {folder.path} again failed: {lines[-1]}")


def _take_path(folder: RunFolder, number: int) -> Path:
    return folder.path / f"take-{number + 1}.json"


def _verdict(pooled: Pooled, layers: tuple[LayerTime, ...], plan: Plan) -> str:
    speedup = pooled.speedup
    measured = f"{speedup.median:.2f}x (interval {speedup.low:.2f} to {speedup.high:.2f})"
    reverted = sum(layer.reverted for layer in layers)
    back = f"; {reverted} of {len(layers)} swapped layers lost and went back to dense" if reverted else ""
    if not layers:
        return "The plan leaves every layer dense: pruning is not worth it on this machine at this input shape."
    if not pooled.is_faster:
        return f"Keep the dense network: the planned one measures {measured} of its speed on this machine{back}."
    target = plan.target.speedup
    met = "" if target is None else f", target {target:g}x {'met' if speedup.median >= target else 'missed'}"
    return f"Ship the planned network: {measured} times the speed of the best dense one{met}{back}."
