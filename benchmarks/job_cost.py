"""What a planned network costs beside a trained one: planning, pruning and fine-tuning against training from scratch.

python -m benchmarks.job_cost --weights ../shared/data/weights/resnet20_cifar10jpeg.safetensors --profile ref:zen5-2c

The times are those of the trainer's own steps in every epoch of a short job, scaled to the steps of a whole one: what a
step costs hangs on the teacher and on how much is cut out by then, not on what has been learnt.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sparseplan.commands.plan import plan as make_plan
from sparseplan.data_spec import load_data
from sparseplan.model_spec import load_model
from sparseplan.planner.schema import Plan
from sparseplan.trainer.assignment import Assignment, assignment_of
from sparseplan.trainer.data import DataSplits, Split
from sparseplan.trainer.distil import frozen_copy
from sparseplan.trainer.learner import Learner
from sparseplan.trainer.schema import TrainConfig
from sparseplan.trainer.store import load_weights

BATCH = 128
EPOCHS = 8
"""Of the short job: pruning in four, fine-tuning in four."""


def main() -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="zoo:resnet20", metavar="SPEC")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="of the dense network")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR", help="with cifar10-jpeg")
    parser.add_argument("--profile", required=True, metavar="P")
    parser.add_argument("--target-speedup", type=float, default=2.0, metavar="X")
    parser.add_argument("--steps", type=int, default=32, metavar="N", help="of each epoch that is timed (32)")
    parser.add_argument("--epochs", type=int, default=60, metavar="N", help="of pruning and fine-tuning (60)")
    parser.add_argument(
        "--scratch-epochs", type=int, default=164, metavar="N", help="of dense training (164, He et al.)"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = load_data(f"cifar10:{given.data}")
    model = load_model(given.model)
    load_weights(model, given.weights)
    plan, plan_s = timed_plan(given)
    few = Split(images=data.train.images[: given.steps * BATCH], labels=data.train.labels[: given.steps * BATCH])
    (_, dense_s) = step_times(model, (), replace(data, train=few), epochs=2)
    planned_s = step_times(model, assignment_of(plan), replace(data, train=few), epochs=EPOCHS)
    steps = len(data.train) // BATCH
    found = {
        "model": given.model,
        "speedup_planned": plan.totals.dense_time_s.median / plan.totals.planned_time_s.median,
        "plan_s": plan_s,
        "dense_step_ms": 1e3 * dense_s,
        "planned_step_ms": [1e3 * time_s for time_s in planned_s],
        "epochs": given.epochs,
        "scratch_epochs": given.scratch_epochs,
    }
    job_s = plan_s + training_s(planned_s, epochs=given.epochs, steps=steps)
    scratch_s = training_s([dense_s], epochs=given.scratch_epochs, steps=steps)
    print(json.dumps({**found, "job_s": job_s, "scratch_s": scratch_s, "job_over_scratch": job_s / scratch_s}))
    return 0


def training_s(step_s: Sequence[float], *, epochs: int, steps: int) -> float:
    """Seconds of a whole training whose epochs, of so many steps, take in turn as long as those of the short job."""
    return epochs * steps * statistics.mean(step_s)


def timed_plan(given: argparse.Namespace) -> tuple[Plan, float]:
    """The plan of the network with its data, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        plan = make_plan(
            given.model,
            (BATCH, 3, 32, 32),
            profile=given.profile,
            out=Path(folder) / "plan.json",
            weights=given.weights,
            data=f"cifar10:{given.data}",
            target_speedup=given.target_speedup,
        )
        return plan, time.perf_counter() - begun


def step_times(model: nn.Module, assignment: Assignment, data: DataSplits, *, epochs: int) -> list[float]:
    """Seconds that a step takes in each epoch of a job; the dense network teaches where there is an assignment."""
    learner = Learner(
        copy.deepcopy(model),
        data,
        assignment=assignment,
        config=TrainConfig(epochs=epochs, batch_size=BATCH, learning_rate=1e-3, distillation=0.5),
        teacher=frozen_copy(model) if assignment else None,
    )
    found = []
    for epoch in range(1, epochs + 1):
        begun = time.perf_counter()
        learner.run_epoch(epoch, report=lambda done, of: None)
        found.append((time.perf_counter() - begun) / learner.steps)
    return found


if __name__ == "__main__":
    sys.exit(main())
