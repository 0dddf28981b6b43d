"""A whole job on the user's file, through the command line, and what its exported files compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import sparseplan
from sparseplan.cli import main
from sparseplan.commands import bench as bench_command
from sparseplan.runtime import bench as network_bench


def finished_job(folder: Path, user_file: Path, profile_path: Path, *plan_options: str) -> Path:
    """The run folder of a planned, trained and measured network."""
    plan, model, data = folder / "plan.json", f"{user_file}:model", f"{user_file}:data"
    planned = ["plan", "--model", model, "--input", "16,1,8,8", "--profile", str(profile_path), *plan_options]
    assert main([*planned, "--out", str(plan)]) == 0
    trained = ["train", "--plan", str(plan), "--model", model, "--data", data, "--run", str(folder / "run")]
    assert main([*trained, "--epochs", "2", "--kd-alpha", "0.5"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_command, "BUDGET_S", 1.0)
        # torch.compile is tried with other networks; here it would take half of the time.
        patch.setattr(network_bench, "hosts_here", lambda _: ("eager", "channels_last"))
        assert main(["bench", str(folder / "run"), "--processes", "1"]) == 0
    return folder / "run"


def check_exports(run: Path, folder: Path, trained: torch.nn.Module) -> None:
    """The run, and each file it is exported to in a folder, compute what was trained."""
    x = torch.randn(16, 1, 8, 8)
    expected: Tensor = trained(x).detach()
    for name in ("net.safetensors", "net.pt2"):
        assert main(["export", str(run), "--to", str(folder / name)]) == 0
        torch.testing.assert_close(sparseplan.load(folder / name)(x), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sparseplan.load(run)(x), expected, rtol=1e-3, atol=1e-3)
