"""A small network with a plan for a GPU, made up: blocks in its convolutions, one of them in a residual block."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import torch
from torch import Tensor, nn

from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.schema import Candidate, LayerPlan, Plan, SolverReport, Target, Totals

PATTERN, SPARSITY = "block:16x16", 0.5
SHAPE = (1, 16, 4, 3)
TIME = Interval(median=1e-4, low=9e-5, high=1.1e-4)
_CONV = Problem(op="conv2d", n=1, c_in=16, c_out=32, h_in=4, w_in=3, kernel=(3, 3), padding=(1, 1))
PROBLEMS = {
    "conv1": _CONV,
    "conv2": replace(_CONV, c_in=32),
    "fc": Problem(op="linear", n=1, c_in=32, c_out=32),
}
KERNELS = {
    "conv2d": ("conv2d_blocks_f32_nhwc__triton", "conv2d_dense_f32_nhwc__cudnn"),
    "linear": ("linear_blocks_f32_nchw__triton", "linear_dense_f32_nchw__cublas"),
}


class Net(nn.Module):
    """Two convolutions, batch-norm behind the first, a residual around the second, and a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.conv1(x)))
        y = torch.relu(self.conv2(y) + y)
        return self.fc(y.mean(dim=(2, 3)))


def pruned_net() -> Net:
    """With the zeros of the plan, and statistics that show whether batch-norm is folded right."""
    torch.manual_seed(0)
    net = Net()
    for name, problem in PROBLEMS.items():
        weight = net.get_submodule(name).weight
        mask = magnitude_mask(weight.detach().reshape(problem.weight_shape), parse_pattern(PATTERN), SPARSITY)
        weight.data *= mask.reshape(weight.shape)
    nn.init.uniform_(net.bn.weight, 0.5, 2.0)
    net.bn.running_mean.normal_()
    net.bn.running_var.uniform_(0.5, 2.0)
    return net.eval()


def _candidate(pattern: str, sparsity: float, kernel: str) -> Candidate:
    return Candidate(
        pattern=pattern,
        sparsity=sparsity,
        kernel=kernel,
        dtype="float32",
        time_s=TIME,
        loss_increase=0.0,
        extrapolated=False,
    )


def gpu_plan() -> Plan:
    """Every layer in blocks, on Triton's kernels."""
    return Plan(
        created=datetime(2030, 1, 1, tzinfo=UTC),
        model="test",
        input_shape=SHAPE,
        threads=1,
        dtype_policy="float32",
        patterns=(PATTERN,),
        target=Target(speedup=1.5),
        layers=tuple(
            LayerPlan(
                name=name,
                full_problem=problem,
                problem=problem.with_sparsity(PATTERN, SPARSITY),
                chosen=_candidate(PATTERN, SPARSITY, KERNELS[problem.op][0]),
                dense=_candidate("dense", 0.0, KERNELS[problem.op][1]),
                considered=(),
                break_even_sparsity={},
                useful_sparsity={},
                calls=1,
                binding_resource="arithmetic",
                reason="for the test",
            )
            for name, problem in PROBLEMS.items()
        ),
        skipped=(),
        totals=Totals(
            dense_time_s=TIME, planned_time_s=TIME, rest_time_s=TIME, loss_increase=0.0, best_reachable_speedup=2.0
        ),
        solver=SolverReport(status="optimal", message="", objective=0.0, bound=0.0, gap_frac=0.0, time_s=0.0),
        sensitivity_source="magnitude",
        machine="Synthetic GPU",
        profile_sha256="0",
        profile_path="gpu.json",
    )
