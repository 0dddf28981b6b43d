"""A planned network, swapped and measured: on a GPU, or on the CPU with interpreted kernels and a made-up clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fake_gpu import FakeGpu
from gpu_samples import HOPPER
from planned_gpu import KERNELS, SHAPE, gpu_plan, pruned_net

from sparseplan.kernels.gpu.machine import detect_gpu
from sparseplan.kernels.progress import silent
from sparseplan.kernels.spec import Machine
from sparseplan.profiles.cuda_timing import MIN_SPAN_S
from sparseplan.profiles.stopwatch import Stopwatch, gpu_stopwatch, stopwatch_of
from sparseplan.runtime import bench
from sparseplan.runtime.bench import take
from sparseplan.runtime.compile import compile_model
from sparseplan.runtime.hosts import network_calls
from sparseplan.runtime.measure_layers import measure_layers
from sparseplan.runtime.schema import Host, LayerTime
from sparseplan.runtime.swapped_layer import SwappedLayer

WAYS: tuple[Host, ...] = ("channels_last", "graph")
"""Those that compile nothing."""


@pytest.fixture(scope="session")
def watch(device: torch.device) -> Stopwatch:
    return stopwatch_of("cuda") if device.type == "cuda" else gpu_stopwatch(device, FakeGpu(launch_s=MIN_SPAN_S))


@pytest.fixture(scope="session")
def machine(device: torch.device) -> Machine:
    return detect_gpu() if device.type == "cuda" else HOPPER


def _example() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def test_layers_are_packed_on_the_device(watch: Stopwatch, machine: Machine) -> None:
    model = pruned_net()
    compiled = compile_model(model, gpu_plan(), machine=machine, device=watch.device)
    assert {
        layer.packed.lists.values.device.type for layer in compiled.modules() if isinstance(layer, SwappedLayer)
    } == {watch.device.type}
    assert not any("relu" in str(node.target) or "add" in str(node.target) for node in compiled.graph.nodes)
    assert isinstance(model.conv1, torch.nn.Conv2d)
    assert model.conv1.weight.device.type == "cpu"
    expected = model(_example()).detach()
    for call in network_calls(compiled, _example(), WAYS, watch).values():
        torch.testing.assert_close(call().cpu(), expected, rtol=1e-4, atol=1e-4)


def test_the_operator_keeps_what_its_fake_promises(watch: Stopwatch, machine: Machine) -> None:
    compiled = compile_model(pruned_net(), gpu_plan(), machine=machine, device=watch.device)
    layer = compiled.get_submodule("conv2")
    x = torch.randn(layer.problem.input_shape, device=watch.device).contiguous(memory_format=torch.channels_last)
    arguments = (x, layer.weight, layer.bias, x.clone(memory_format=torch.preserve_format), layer.call)
    torch.library.opcheck(torch.ops.sparseplan.run_layer.default, arguments)


def test_a_take_measures_layers_and_both_networks_in_every_way(
    watch: Stopwatch, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "hosts_here", lambda _: WAYS)
    monkeypatch.setattr(bench, "measure_layers", _one_lost)
    model = pruned_net()
    taken = take(
        model,
        model,
        plan=gpu_plan(),
        example=_example(),
        machine=machine,
        budget_s=0.0,
        progress=silent,
        watch=replace(watch, clock_hz=lambda: 1e9),
    )
    assert {(time.variant, time.host) for time in taken.networks} == {
        (variant, host) for variant in ("dense", "planned") for host in WAYS
    }
    assert taken.output_error < 1e-4
    assert taken.clock_hz == (1e9, 1e9)
    assert [(layer.kernel, layer.dense_kernel) for layer in taken.layers] == [
        KERNELS["conv2d"],
        KERNELS["conv2d"],
        KERNELS["linear"],
    ]
    assert all(layer.max_abs_error < 1e-4 for layer in taken.layers)


def _one_lost(*arguments: object, **options: object) -> tuple[LayerTime, ...]:
    """What is measured, but for who lost: an interpreter's times say nothing."""
    times = measure_layers(*arguments, **options)  # type: ignore[arg-type]
    return tuple(layer.model_copy(update={"reverted": layer.name == "conv2"}) for layer in times)
