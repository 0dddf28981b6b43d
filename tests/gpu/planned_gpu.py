"""A small network with a plan for a GPU, made up: blocks in its convolutions, one of them in a residual block."""

from __future__ import annotations

from dataclasses import replace

import torch
from made_up_plan import layer_plan, plan_with
from torch import Tensor, nn

from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.planner.schema import Plan

PATTERN, SPARSITY = "block:16x16", 0.5
SHAPE = (1, 16, 4, 3)
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


def gpu_plan() -> Plan:
    """Every layer in blocks, on Triton's kernels."""
    layers = (
        layer_plan(
            name,
            problem.with_sparsity(PATTERN, SPARSITY),
            kernel=KERNELS[problem.op][0],
            dense_kernel=KERNELS[problem.op][1],
        )
        for name, problem in PROBLEMS.items()
    )
    return plan_with(*layers, input_shape=SHAPE, pattern=PATTERN, machine="Synthetic GPU")
