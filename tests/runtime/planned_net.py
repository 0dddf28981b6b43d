"""A small network with a plan for it, made up: for tests of what is done with plans."""

from datetime import UTC, datetime

import torch
from torch import Tensor, nn

from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.schema import Candidate, LayerPlan, Plan, SolverReport, Target, Totals

SPARSITY = 0.8
KERNEL = "conv2d_unstructured_f32_flat__baseline"
DENSE_KERNEL = "conv2d_dense_f32_nhwc__torch"
TIME = Interval(median=1e-4, low=9e-5, high=1.1e-4)


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

    def candidate(pattern: str, sparsity: float, name: str) -> Candidate:
        return Candidate(
            pattern=pattern,
            sparsity=sparsity,
            kernel=name,
            dtype="float32",
            time_s=TIME,
            loss_increase=0.0,
            extrapolated=False,
        )

    layers = tuple(
        LayerPlan(
            name=name,
            full_problem=problem.as_dense(),
            problem=problem.with_sparsity("unstructured", SPARSITY),
            chosen=candidate("unstructured", SPARSITY, kernel),
            dense=candidate("dense", 0.0, DENSE_KERNEL),
            considered=(),
            break_even_sparsity={},
            useful_sparsity={},
            calls=1,
            binding_resource="arithmetic",
            reason="for the test",
        )
        for name, problem in PROBLEMS.items()
    )
    return Plan(
        created=datetime.now(UTC),
        model="test",
        input_shape=(2, 3, 9, 9),
        threads=1,
        dtype_policy="float32",
        patterns=("unstructured",),
        target=Target(speedup=1.5),
        layers=layers,
        skipped=(),
        totals=Totals(
            dense_time_s=TIME, planned_time_s=TIME, rest_time_s=TIME, loss_increase=0.0, best_reachable_speedup=2.0
        ),
        solver=SolverReport(status="optimal", message="", objective=0.0, bound=0.0, gap_frac=0.0, time_s=0.0),
        sensitivity_source="magnitude",
        machine="test",
        profile_sha256="0",
        profile_path="p.json",
    )


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
