"""A small network with a plan for it, made up: for tests of what is done with plans."""

import torch
from made_up_plan import layer_plan, plan_with
from torch import Tensor, nn

from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.planner.schema import Plan

SPARSITY = 0.8
KERNEL = "conv2d_unstructured_f32_flat__baseline"
DENSE_KERNEL = "conv2d_dense_f32_nhwc__torch"


class Net(nn.Module):
    """Two convolutions, a batch-norm and a ReLU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.conv1(x)))
        return self.conv2(y).mean(dim=(2, 3))


PROBLEMS = {
    "conv1": Problem(op="conv2d", n=2, c_in=3, c_out=8, h_in=9, w_in=9, kernel=(3, 3), padding=(1, 1)),
    "conv2": Problem(op="conv2d", n=2, c_in=8, c_out=8, h_in=9, w_in=9, kernel=(3, 3), stride=(2, 2)),
}


def plan_of(kernel: str = KERNEL) -> Plan:
    """Both convolutions unstructured, on one kernel."""
    layers = (
        layer_plan(name, problem.with_sparsity("unstructured", SPARSITY), kernel=kernel, dense_kernel=DENSE_KERNEL)
        for name, problem in PROBLEMS.items()
    )
    return plan_with(*layers, input_shape=(2, 3, 9, 9), pattern="unstructured")


def masked(net: nn.Module) -> nn.Module:
    """The network with the zeros of the plan, and statistics that show whether batch-norm is folded right."""
    torch.manual_seed(0)
    for name in PROBLEMS:
        weight = net.get_submodule(name).weight
        nn.init.normal_(weight)
        weight.data *= magnitude_mask(weight.detach(), parse_pattern("unstructured"), SPARSITY)
    nn.init.uniform_(net.bn.weight, 0.5, 2.0)
    net.bn.running_mean.normal_()
    net.bn.running_var.uniform_(0.5, 2.0)
    return net.eval()
