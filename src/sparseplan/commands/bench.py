"""``sparseplan bench``: dense against planned, alternating, end to end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import torch

from ..data_spec import load_data
from ..kernels.cpu import detect_machine
from ..kernels.dense import TORCH_DTYPES
from ..kernels.progress import Progress, silent
from ..model_spec import load_model
from ..planner.schema import Plan
from ..planner.store import load_plan
from ..profiles.fingerprint import read_fingerprint
from ..runtime.bench import BenchResult
from ..runtime.bench import bench as bench_networks
from ..runtime.elsewhere import warn_if_planned_elsewhere
from ..runtime.fixed_batch import FixedBatch
from ..runtime.schema import Measurements
from ..runtime.store import save_measurements
from ..trainer.evaluate import evaluate
from ..trainer.store import RunFolder, load_weights

BUDGET_S = 30.0
"""Time for measuring layers and networks; building the networks comes on top."""


def bench(run: str | Path, *, progress: Progress = silent) -> Measurements:
    """Measure a trained run: every swapped layer, then both networks under every host, then their accuracy.

    Layers that lose in measurement go back to dense. Where the planned network is not faster beyond doubt, the verdict
    is to ship the dense one.

    Raises
    ------
    InputError
        If the folder is not a finished run.
    UnsupportedError
        If the plan's kernels cannot run on this machine.
    """
    folder = RunFolder(Path(run))
    plan = load_plan(folder.plan)
    manifest = folder.load_manifest()
    dense, masked = load_model(manifest.model), load_model(manifest.model)
    load_weights(dense, folder.dense_weights)
    load_weights(masked, folder.planned_weights)
    data = load_data(manifest.data, progress=progress)
    images = data.test.images
    example = data.normalise(images[torch.arange(plan.input_shape[0]) % len(images)])
    machine = detect_machine()
    warn_if_planned_elsewhere(plan, machine)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        result = bench_networks(
            dense.eval(),
            masked.eval(),
            plan=plan,
            example=example,
            machine=machine,
            budget_s=BUDGET_S,
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads_before)
    batch = plan.input_shape[0]
    progress("measuring accuracy", 0, 2)
    dense_accuracy = evaluate(dense, data, data.test, batch_size=batch).accuracy_frac
    progress("measuring accuracy", 1, 2)
    planned = FixedBatch(result.planned, batch=batch, dtype=TORCH_DTYPES[result.best_planned.dtype])
    planned_accuracy = evaluate(planned, data, data.test, batch_size=batch).accuracy_frac
    progress("measuring accuracy", 2, 2)
    measurements = Measurements(
        created=datetime.now(UTC),
        threads=plan.threads,
        fingerprint=read_fingerprint(machine),
        networks=result.networks,
        layers=result.layers,
        best_dense=result.best_dense,
        best_planned=result.best_planned,
        speedup=result.speedup,
        predicted_dense_time_s=plan.totals.dense_time_s,
        predicted_planned_time_s=plan.totals.planned_time_s,
        dense_accuracy_frac=dense_accuracy,
        planned_accuracy_frac=planned_accuracy,
        output_error=result.output_error,
        shipped="planned" if result.is_faster else "dense",
        verdict=_verdict(result, plan),
    )
    save_measurements(folder.measurements, measurements)
    return measurements


def _verdict(result: BenchResult, plan: Plan) -> str:
    speedup = result.speedup
    measured = f"{speedup.median:.2f}x (interval {speedup.low:.2f} to {speedup.high:.2f})"
    reverted = sum(layer.reverted for layer in result.layers)
    back = f"; {reverted} of {len(result.layers)} swapped layers lost and went back to dense" if reverted else ""
    if not result.layers:
        return "The plan leaves every layer dense: pruning is not worth it on this machine at this input shape."
    if not result.is_faster:
        return f"Keep the dense network: the planned one measures {measured} of its speed on this machine{back}."
    target = plan.target.speedup
    met = "" if target is None else f", target {target:g}x {'met' if speedup.median >= target else 'missed'}"
    return f"Ship the planned network: {measured} times the speed of the best dense one{met}{back}."
