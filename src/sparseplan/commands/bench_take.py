"""One take of ``sparseplan bench``: what one process measures of a run; a program of its own for fresh processes."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..data_spec import load_data
from ..kernels.documents import sha256_of
from ..kernels.errors import SparseplanError
from ..kernels.progress import Progress, silent
from ..model_spec import load_model
from ..planner.schema import Plan
from ..planner.store import load_plan
from ..profiles.fingerprint import read_fingerprint
from ..profiles.measure_problems import torch_threads
from ..profiles.stopwatch import stopwatch_of
from ..runtime.bench import take
from ..runtime.hosts import on_device
from ..runtime.measure_layers import measure_layers
from ..runtime.planned_machine import planned_machine
from ..runtime.schema import LayerTime, StoredLayers, StoredTake
from ..runtime.store import load_take, save_layers, save_take
from ..trainer.planned_network import planned_network
from ..trainer.store import RunFolder, load_weights


def measure_layers_of(
    folder: RunFolder, *, names: Sequence[str] | None, budget_s: float, progress: Progress
) -> StoredLayers:
    """Measure the swapped layers of a trained run in this process, on the plan's threads; all where none are named."""
    plan = load_plan(folder.plan)
    watch = stopwatch_of(planned_machine(plan).device)
    with torch_threads(plan.threads), watch.settings():
        masked = on_device(_planned(folder, plan), watch.device)
        layers = measure_layers(masked, plan, budget_s=budget_s, progress=progress, names=names, watch=watch)
    return StoredLayers(measured=identity(folder), layers=layers)


def measure_take(
    folder: RunFolder,
    *,
    layers: tuple[LayerTime, ...],
    budget_s: float,
    earlier: StoredTake | None,
    progress: Progress,
) -> StoredTake:
    """Measure the networks of a trained run in this process, on the plan's threads.

    Parameters
    ----------
    layers : tuple of LayerTime
        Those that lost run densely.
    earlier : StoredTake or None
        The first take: what it found slow is left out.
    """
    plan = load_plan(folder.plan)
    machine = planned_machine(plan)
    data = load_data(folder.load_manifest().data, progress=progress)
    images = data.test.images
    example = data.normalise(images[torch.arange(plan.input_shape[0]) % len(images)])
    with torch_threads(plan.threads):
        taken = take(
            _with_weights(load_model(folder.load_manifest().model), folder.dense_weights),
            _planned(folder, plan),
            plan=plan,
            example=example,
            machine=machine,
            budget_s=budget_s,
            progress=progress,
            layers=layers,
            earlier=None if earlier is None else earlier.take,
            watch=stopwatch_of(machine.device),
        )
    return StoredTake(measured=identity(folder), take=taken)


def _planned(folder: RunFolder, plan: Plan) -> nn.Module:
    return _with_weights(planned_network(load_model(folder.load_manifest().model), plan), folder.planned_weights)


def _with_weights(model: nn.Module, weights: Path) -> nn.Module:
    load_weights(model, weights)
    return model.eval()


def identity(folder: RunFolder) -> str:
    """SHA-256 of what a take depends on: plan, weights and machine."""
    files = (folder.plan, folder.dense_weights, folder.planned_weights)
    parts = [*map(sha256_of, files), read_fingerprint(planned_machine(load_plan(folder.plan))).model_dump_json()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main() -> int:
    """Measure and write one take, or some layers; the last line on standard error tells what went wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--budget-s", type=float, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--layers", nargs="+", help="names of layers, and no networks")
    what.add_argument("--earlier", type=Path, help="the first take: networks, with its layers")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folder, budget_s = RunFolder(options.run), options.budget_s
    try:
        if options.layers:
            found = measure_layers_of(folder, names=options.layers, budget_s=budget_s, progress=silent)
            save_layers(options.out, found)
        else:
            earlier = load_take(options.earlier)
            layers = earlier.take.layers
            measured = measure_take(folder, layers=layers, budget_s=budget_s, earlier=earlier, progress=silent)
            save_take(options.out, measured)
    except SparseplanError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
