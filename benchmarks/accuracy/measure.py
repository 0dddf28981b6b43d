"""The time of a trained network with its sparse kernels, and of the dense one, measured in alternation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.progress import Progress
from sparseplan.planner.schema import Plan
from sparseplan.runtime.bench import fastest, take
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.store import load_weights

BUDGET_S = 10.0
"""For timing; building the networks comes on top."""


def measure_network(
    network: Callable[[], nn.Module], plan: Plan, weights: Path, *, data: DataSplits, progress: Progress
) -> tuple[float, float]:
    """Median times of the planned and of the dense network, seconds, each the fastest way to run it."""
    masked = network()
    load_weights(masked, weights)
    images = data.test.images
    threads_before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        taken = take(
            network().eval(),
            masked.eval(),
            plan=plan,
            example=data.normalise(images[torch.arange(plan.input_shape[0]) % len(images)]),
            machine=detect_machine(),
            budget_s=BUDGET_S,
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads_before)
    planned, dense = (fastest(taken.networks, variant) for variant in ("planned", "dense"))
    return planned.time_s.median, dense.time_s.median
