"""One take of ``sparseplan bench``: what one process measures of a run; a program of its own for fresh processes."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import torch

from ..data_spec import load_data
from ..kernels.cpu import detect_machine
from ..kernels.documents import sha256_of
from ..kernels.errors import SparseplanError
from ..kernels.progress import Progress, silent
from ..model_spec import load_model
from ..planner.store import load_plan
from ..profiles.fingerprint import read_fingerprint
from ..runtime.bench import take
from ..runtime.schema import StoredTake
from ..runtime.store import load_take, save_take
from ..trainer.sas import network_of
from ..trainer.store import RunFolder, load_weights


def measure_take(folder: RunFolder, *, budget_s: float, earlier: StoredTake | None, progress: Progress) -> StoredTake:
    """Measure a trained run in this process, on the plan's threads.

    Parameters
    ----------
    earlier : StoredTake or None
        The first take: its layers stand, and what it found slow is left out.
    """
    plan = load_plan(folder.plan)
    manifest = folder.load_manifest()
    dense, masked = load_model(manifest.model), network_of(load_model(manifest.model), plan)
    load_weights(dense, folder.dense_weights)
    load_weights(masked, folder.planned_weights)
    data = load_data(manifest.data, progress=progress)
    images = data.test.images
    example = data.normalise(images[torch.arange(plan.input_shape[0]) % len(images)])
    threads_before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        taken = take(
            dense.eval(),
            masked.eval(),
            plan=plan,
            example=example,
            machine=detect_machine(),
            budget_s=budget_s,
            progress=progress,
            earlier=None if earlier is None else earlier.take,
        )
    finally:
        torch.set_num_threads(threads_before)
    return StoredTake(measured=identity(folder), take=taken)


def identity(folder: RunFolder) -> str:
    """SHA-256 of what a take depends on: plan, weights and machine."""
    files = (folder.plan, folder.dense_weights, folder.planned_weights)
    parts = [*map(sha256_of, files), read_fingerprint(detect_machine()).model_dump_json()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main() -> int:
    """Measure and write one take; the last line on standard error tells what went wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--budget-s", type=float, required=True)
    parser.add_argument("--earlier", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    try:
        earlier = load_take(options.earlier)
        measured = measure_take(RunFolder(options.run), budget_s=options.budget_s, earlier=earlier, progress=silent)
        save_take(options.out, measured)
    except SparseplanError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
