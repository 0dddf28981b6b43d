"""Several processes train the network that one alone would have trained."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sparseplan.kernels.errors import InputError
from sparseplan.trainer.processes import Processes, started_processes
from sparseplan.trainer.store import RunFolder

SCRIPT = Path(__file__).with_name("ddp_run.py")


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def run(folder: Path, *, processes: int) -> None:
    base = {**os.environ, "OMP_NUM_THREADS": "1"}
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env={**base, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else base,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def test_two_processes_train_the_network_of_one(tmp_path: Path) -> None:
    """Distillation, SR-STE, masks, a width cut out, batch-norm and the moving average included, to rounding."""
    for processes in (1, 2):
        run(tmp_path / str(processes), processes=processes)
    alone, together = (RunFolder(tmp_path / str(processes)) for processes in (1, 2))
    for name in ("planned_weights", "last_checkpoint"):
        ours, theirs = load_file(getattr(together, name)), load_file(getattr(alone, name))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-4, msg=key)
    weights = load_file(together.planned_weights)
    assert float((weights["conv2.weight"] == 0).double().mean()) == pytest.approx(0.75)
    assert float((weights["fc1.weight"] == 0).double().mean()) == pytest.approx(0.75)
    assert int(weights["fc1.weight"].any(dim=1).sum()) == 32


@pytest.mark.parametrize(("count", "size"), [(100, 3), (7, 4), (2, 5)])
def test_parts_make_up_the_whole_batch(count: int, size: int) -> None:
    parts = [Processes(rank=rank, size=size).part(count) for rank in range(size)]
    assert [index for part in parts for index in range(count)[part]] == list(range(count))
    assert max(part.stop - part.start for part in parts) - min(part.stop - part.start for part in parts) <= 1


def test_half_of_torchruns_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match="MASTER_ADDR"), started_processes():
        pass
