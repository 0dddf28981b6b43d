"""Started by torchrun in the tests: train a small network, in as many processes as there are."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from conftest import DigitNet, load_digit_splits

from sparseplan.kernels.pattern import parse_pattern
from sparseplan.planner.schema import ChannelSlice, WidthGroup
from sparseplan.trainer.assignment import LayerSparsity, WidthSparsity
from sparseplan.trainer.loop import train
from sparseplan.trainer.processes import started_processes
from sparseplan.trainer.schema import TrainConfig

ASSIGNMENT = tuple(
    LayerSparsity(name=name, pattern=parse_pattern(pattern), sparsity=sparsity)
    for name, pattern, sparsity in (("conv2", "filter+shape", 0.75), ("fc1", "2:4", 0.5))
)
HALF_OF_FC1 = WidthGroup(
    name="fc1",
    units=64,
    slices=(
        ChannelSlice(module="fc1", axis="out", offsets=(0,), run=1),
        ChannelSlice(module="fc2", axis="in", offsets=(0,), run=1),
    ),
)
"""Cut out of the network after the first epoch."""


def run(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = DigitNet()
    network.dropout.p = 0.0  # each process draws its own
    config = TrainConfig(epochs=2, batch_size=100, learning_rate=0.02, distillation=0.5, ema_decay=0.9)
    with started_processes() as processes:
        assignment = (WidthSparsity(group=HALF_OF_FC1, kept=32), *ASSIGNMENT)
        train(network, load_digit_splits(300), assignment, config=config, run_dir=folder, processes=processes)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
