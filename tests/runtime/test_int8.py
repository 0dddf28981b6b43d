"""Int8 layers in a residual block: ranges of whole kernels, agreement with what is trained, and the packed file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_plan import layer_plan, plan_with
from safetensors.torch import load_file
from torch import Tensor, nn

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.problem import Problem
from sparseplan.planner.schema import Plan
from sparseplan.runtime.closed_loop import pruned, with_ranges
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.packed_weights import load_packed, save_packed
from sparseplan.runtime.swapped_layer import SwappedLayer
from sparseplan.trainer.int8_layers import Int8Layer
from sparseplan.trainer.planned_network import planned_network

pytestmark = pytest.mark.skipif("avx512vnni" not in detect_machine().isa, reason="no int8 kernel runs on this CPU")


class Block(nn.Module):
    """Batch-norms, a ReLU and an addition that kernels take in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        for norm in (self.bn1, self.bn2):
            norm.weight.data.uniform_(-1.5, 1.5)
            norm.bias.data.normal_()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


def block_plan() -> Plan:
    """The first layer in int8 and with half of its blocks, the second in int8 alone."""
    conv = Problem(op="conv2d", n=2, c_in=32, c_out=32, h_in=6, w_in=5, kernel=(3, 3), padding=(1, 1), dtype="int8")
    layers = []
    for name, problem in (("conv1", conv.with_sparsity("block:16x4", 0.5)), ("conv2", conv)):
        kernel = "conv2d_vector_i8_nhwc__avx512vnni"
        layer = layer_plan(name, problem, kernel=kernel, dense_kernel="conv2d_dense_f32_nchw__torch")
        chosen = layer.chosen.model_copy(update={"dtype": "int8", "other_dense": problem.pattern == "dense"})
        full = replace(layer.full_problem, dtype="float32")
        layers.append(layer.model_copy(update={"chosen": chosen, "full_problem": full}))
    return plan_with(*layers, input_shape=(2, 32, 6, 5), pattern="block:16x4")


@pytest.fixture
def ranged() -> tuple[nn.Module, Plan, Tensor]:
    plan, x = block_plan(), torch.randn(2, 32, 6, 5, generator=torch.Generator().manual_seed(1))
    return with_ranges(pruned(Block().eval(), plan), plan, x), plan, x


def test_kernels_take_in_additions_and_agree_with_what_is_trained(ranged: tuple[nn.Module, Plan, Tensor]) -> None:
    model, plan, x = ranged
    first, last = (model.get_submodule(name) for name in ("conv1", "conv2"))
    assert isinstance(first, Int8Layer)
    assert isinstance(last, Int8Layer)
    assert 0.4 < float((first.get_parameter("weight") == 0).double().mean()) < 0.6
    expected = model(x).detach()
    # Behind the ReLU, and of the last layer with what is added to it, which is negative in places.
    assert first.y_range[0] == 0.0
    assert last.y_range[0] == x.min()
    assert float(last.y_range[1]) == pytest.approx(float(torch.maximum(expected, x).max()), rel=0.05)
    compiled = compile_model(model, plan)
    assert sum(isinstance(each, SwappedLayer) for each in compiled.modules()) == 2
    steps = (compiled(x) - expected).abs() / last.quantisation().y_scale
    # Half a step each for output and residual, and what the first layer's rounded output brings.
    assert float(steps.max()) < 4.0
    assert float(steps.mean()) < 0.7
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(compiled(channels_last), compiled(x))


def test_a_layer_that_goes_back_to_dense_is_plain(ranged: tuple[nn.Module, Plan, Tensor]) -> None:
    model, plan, x = ranged
    compiled = compile_model(model, plan, keep_dense=["conv2"])
    assert not any(isinstance(each, Int8Layer) for each in compiled.modules())
    expected = model(x).detach()
    assert float((compiled(x) - expected).abs().max()) < 0.05 * float(expected.max())


def test_the_packed_file_holds_integers_and_gives_the_same_network(
    ranged: tuple[nn.Module, Plan, Tensor], tmp_path: Path
) -> None:
    model, plan, x = ranged
    save_packed(tmp_path / "n.safetensors", model, plan)
    stored = load_file(tmp_path / "n.safetensors")
    assert stored["conv1.weight/values"].dtype == stored["conv2.weight"].dtype == torch.int8
    again = planned_network(Block().eval(), plan)
    load_packed(tmp_path / "n.safetensors").fill(again)
    assert torch.equal(compile_model(again, plan)(x), compile_model(model, plan)(x))
