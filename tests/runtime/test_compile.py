"""The compiled network computes what the masked one does, on the kernels that the plan names."""

from datetime import UTC, datetime

import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.progress import silent
from sparseplan.kernels.spec import Machine
from sparseplan.perfmodel.schema import Interval
from sparseplan.planner.schema import Candidate, LayerPlan, Plan, SolverReport, Target, Totals
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.measure_layers import measure_layers
from sparseplan.runtime.swapped_layer import SwappedLayer

SPARSITY = 0.8
KERNEL = "conv2d_unstructured_f32_flat__baseline"
DENSE_KERNEL = "conv2d_dense_f32_nhwc__torch"
TIME = Interval(median=1e-4, low=9e-5, high=1.1e-4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.conv1(x)))
        return self.conv2(y).mean(dim=(2, 3))


class Untraceable(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if bool((x == x).all()) else x * 0)


PROBLEMS = {
    "conv1": Problem(op="conv2d", n=2, c_in=3, c_out=8, h_in=9, w_in=9, kernel=(3, 3), padding=(1, 1)),
    "conv2": Problem(op="conv2d", n=2, c_in=8, c_out=8, h_in=9, w_in=9, kernel=(3, 3), stride=(2, 2)),
}


def _plan(kernel: str = KERNEL) -> Plan:
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


def _masked(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for name in PROBLEMS:
        weight = net.get_submodule(name).weight
        nn.init.normal_(weight)
        weight.data *= magnitude_mask(weight.detach(), parse_pattern("unstructured"), SPARSITY)
    nn.init.uniform_(net.bn.weight, 0.5, 2.0)
    net.bn.running_mean.normal_()
    net.bn.running_var.uniform_(0.5, 2.0)
    return net.eval()


@pytest.mark.parametrize("kind", [Net, Untraceable])
def test_compiled_equals_masked(kind: type[Net]) -> None:
    model = _masked(kind())
    compiled = compile_model(model, _plan(), machine=detect_machine())
    assert isinstance(compiled.get_submodule("conv1"), SwappedLayer)
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    assert isinstance(model.conv1, nn.Conv2d)


def test_batch_norm_and_relu_become_part_of_the_layer() -> None:
    compiled = compile_model(_masked(Net()), _plan(), machine=detect_machine())
    targets = [str(node.target) for node in compiled.graph.nodes]
    assert "bn" not in targets
    assert not any("relu" in target for target in targets)


def test_layers_that_lost_stay_with_torch() -> None:
    compiled = compile_model(_masked(Net()), _plan(), machine=detect_machine(), keep_dense=["conv2"])
    assert isinstance(compiled.get_submodule("conv1"), SwappedLayer)
    assert isinstance(compiled.get_submodule("conv2"), nn.Conv2d)


def test_a_missing_kernel_is_an_error() -> None:
    with pytest.raises(InputError, match="conv2d_imaginary"):
        compile_model(_masked(Net()), _plan("conv2d_imaginary"), machine=detect_machine())


def test_a_kernel_this_machine_cannot_run_is_an_error() -> None:
    with pytest.raises(UnsupportedError, match=r"conv1.*avx512.*plan again"):
        compile_model(_masked(Net()), _plan("conv2d_unstructured_f32_flat__avx512"), machine=Machine(isa=("baseline",)))


def test_a_plan_for_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="conv1"):
        compile_model(nn.Sequential(nn.Conv2d(3, 8, 3)), _plan(), machine=detect_machine())


def test_each_swapped_layer_is_timed_and_checked() -> None:
    times = measure_layers(_masked(Net()), _plan(), budget_s=0.2, progress=silent)
    assert [layer.name for layer in times] == ["conv1", "conv2"]
    for layer in times:
        assert layer.max_abs_error < 1e-4
        assert layer.reverted == (layer.time_s.median >= layer.dense_time_s.median)
