"""The compiled network computes what the masked one does, on the kernels that the plan names."""

from dataclasses import replace

import pytest
import torch
from planned_net import Net, masked, plan_of
from torch import Tensor, nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.progress import silent
from sparseplan.kernels.spec import Machine
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.hosts import host_call
from sparseplan.runtime.measure_layers import measure_layers
from sparseplan.runtime.schema import Host
from sparseplan.runtime.swapped_layer import SwappedLayer


class Untraceable(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if bool((x == x).all()) else x * 0)


@pytest.mark.parametrize("kind", [Net, Untraceable])
def test_compiled_equalsmasked(kind: type[Net]) -> None:
    model = masked(kind())
    compiled = compile_model(model, plan_of(), machine=detect_machine())
    assert isinstance(compiled.get_submodule("conv1"), SwappedLayer)
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    assert isinstance(model.conv1, nn.Conv2d)


def test_batch_norm_and_relu_become_part_of_the_layer() -> None:
    compiled = compile_model(masked(Net()), plan_of(), machine=detect_machine())
    targets = [str(node.target) for node in compiled.graph.nodes]
    assert "bn" not in targets
    assert not any("relu" in target for target in targets)


class Residual(Net):
    """conv2 ends a residual block; its shortcut is computed after it."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(3, 8, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.relu(self.bn(self.conv1(x))))
        return torch.relu(y + self.shortcut(x[:, :, 1:-1, 1:-1])).mean(dim=(2, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("host", ["eager", "channels_last", "compile"])
def test_residual_additions_run_inside_the_kernel(host: Host) -> None:
    model = masked(Residual())
    compiled = compile_model(model, plan_of(), machine=detect_machine())
    targets = {str(node.target) for node in compiled.graph.nodes if node.op == "call_function"}
    assert not any("add" in target or "relu" in target for target in targets)
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(host_call(compiled, x, host=host)(), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_layers_that_lost_stay_with_torch() -> None:
    compiled = compile_model(masked(Net()), plan_of(), machine=detect_machine(), keep_dense=["conv2"])
    assert isinstance(compiled.get_submodule("conv1"), SwappedLayer)
    assert isinstance(compiled.get_submodule("conv2"), nn.Conv2d)


def test_a_missing_kernel_is_an_error() -> None:
    with pytest.raises(InputError, match="conv2d_imaginary"):
        compile_model(masked(Net()), plan_of("conv2d_imaginary"), machine=detect_machine())


def test_a_kernel_this_machine_cannot_run_is_an_error() -> None:
    with pytest.raises(UnsupportedError, match=r"conv1.*avx512.*plan again"):
        compile_model(
            masked(Net()), plan_of("conv2d_unstructured_f32_flat__avx512"), machine=Machine(isa=("baseline",))
        )


def test_a_plan_for_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="conv1"):
        compile_model(nn.Sequential(nn.Conv2d(3, 8, 3)), plan_of(), machine=detect_machine())


def test_each_swapped_layer_is_timed_and_checked() -> None:
    times = measure_layers(masked(Net()), plan_of(), budget_s=0.2, progress=silent)
    assert [layer.name for layer in times] == ["conv1", "conv2"]
    for layer in times:
        assert layer.max_abs_error < 1e-4
        assert layer.reverted == (layer.time_s.median >= layer.dense_time_s.median)


class Chain(Net):
    """Two convolutions on end, a residual between them, and a reader that is no kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn(self.conv1(x)))
        return torch.relu(self.conv2(y) + y).mean(dim=(2, 3))


@pytest.mark.parametrize("host", ["eager", "channels_last", "compile"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_activations_stay_blocked_between_kernels_of_one_layout(host: Host) -> None:
    plan = plan_of("conv2d_unstructured_f32_n4_n4chw__baseline")
    wide = replace(plan.layers[1].problem, stride=(1, 1), padding=(1, 1))
    plan = plan.model_copy(update={"layers": (plan.layers[0], plan.layers[1].model_copy(update={"problem": wide}))})
    model = masked(Chain())
    compiled = compile_model(model, plan, machine=detect_machine())
    assert compiled.get_submodule("conv1").gives_blocked
    assert not compiled.get_submodule("conv2").gives_blocked
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(host_call(compiled, x, host=host)(), model(x).detach(), rtol=1e-4, atol=1e-4)


class Mlp(nn.Module):
    """One linear with a ReLU behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 40)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(x))


def test_a_dense_layer_runs_on_the_other_kernel_of_its_plan() -> None:
    model, other = Mlp().eval(), "linear_dense_f32_nchw__onednn"
    plan = plan_of()
    problem = Problem(op="linear", n=6, c_in=48, c_out=40)
    rival = plan.layers[0].dense.model_copy(update={"kernel": "linear_dense_f32_nchw__torch"})
    chosen = rival.model_copy(update={"kernel": other, "other_dense": True})
    layer = plan.layers[0].model_copy(
        update={"name": "fc", "full_problem": problem, "problem": problem, "chosen": chosen, "dense": rival}
    )
    plan = plan.model_copy(update={"layers": (layer,), "input_shape": (6, 48)})
    compiled = compile_model(model, plan, machine=detect_machine())
    fc = compiled.get_submodule("fc")
    assert isinstance(fc, SwappedLayer)
    assert (fc.kernel.name, fc.relu) == (other, True)
    x = torch.randn(6, 48)
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    (measured,) = measure_layers(model, plan, budget_s=0.1, progress=silent)
    assert (measured.kernel, measured.dense_kernel) == (other, rival.kernel)
    assert measured.reverted == (measured.time_s.median >= measured.dense_time_s.median)
    left = plan.model_copy(update={"layers": (layer.model_copy(update={"chosen": rival}),)})
    assert isinstance(compile_model(model, left, machine=detect_machine()).get_submodule("fc"), nn.Linear)
