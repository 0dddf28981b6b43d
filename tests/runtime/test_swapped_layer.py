"""The operator behind swapped layers: eager, compiled, and refused shapes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import kernel_named
from sparseplan.kernels.reorder import to_layout
from sparseplan.kernels.spec import Cost, KernelSpec, Layout, Machine
from sparseplan.runtime import swapped_layer
from sparseplan.runtime.fixed_batch import FixedBatch
from sparseplan.runtime.swapped_layer import SwappedLayer

CONV = Problem(op="conv2d", n=2, c_in=3, c_out=5, h_in=7, w_in=6, kernel=(3, 3), padding=(1, 1))
LINEAR = Problem(op="linear", n=6, c_in=4, c_out=3)


def _torch_kernel(problem: Problem, layout: Layout) -> KernelSpec:
    """A kernel whose packed form is its arguments."""

    def run(packed: tuple[Tensor, Tensor | None, bool], x: Tensor, residual: Tensor | None = None) -> Tensor:
        weight, bias, relu = packed
        if problem.op == "linear":
            y = nn.functional.linear(x, weight[:, :, 0, 0], bias)
        else:
            y = nn.functional.conv2d(x, weight, bias, problem.stride, problem.padding)
        y = y if residual is None else y + residual
        return y.relu() if relu else y

    return KernelSpec(
        name="test_kernel",
        op=problem.op,
        patterns=("dense",),
        dtype="float32",
        isa="any",
        layout=layout,
        pack=lambda _, weight, bias, relu: (weight, bias, relu),
        run=run,
        cost=lambda _: Cost(unit="fma_f32", flop=1, bytes_streamed=1, bytes_moved=1, tasks=1),
        why_unsupported=lambda *_: None,
    )


def _layer(problem: Problem, layout: Layout = "nchw", relu: bool = False) -> SwappedLayer:
    torch.manual_seed(0)
    weight, bias = torch.randn(problem.weight_shape), torch.randn(problem.c_out)
    return SwappedLayer(problem, _torch_kernel(problem, layout), weight=weight, bias=bias, relu=relu)


def _expected(layer: SwappedLayer, x: Tensor) -> Tensor:
    return layer.kernel.run(layer.packed, x)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_eager_convolution(layout: Layout, memory_format: torch.memory_format) -> None:
    layer = _layer(CONV, layout, relu=True)
    x = torch.randn(CONV.input_shape).contiguous(memory_format=memory_format)
    torch.testing.assert_close(layer(x), _expected(layer, x))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernel_of_a_blocked_layout(memory_format: torch.memory_format) -> None:
    problem = replace(CONV, n=6).with_sparsity("unstructured", 0.5)
    weight, bias = torch.randn(problem.weight_shape), torch.randn(problem.c_out)
    kernel = kernel_named("conv2d_unstructured_f32_n4_n4chw__baseline")
    layer = SwappedLayer(problem, kernel, weight=weight, bias=bias, relu=True)
    x = torch.randn(problem.input_shape).contiguous(memory_format=memory_format)
    expected = nn.functional.conv2d(x, weight, bias, padding=1).relu()
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_linear_takes_leading_dimensions() -> None:
    layer = _layer(LINEAR)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(layer(x), _expected(layer, x.reshape(6, 4)).view(2, 3, 3))


def test_other_input_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(InputError, match=r"\[2, 3, 7, 6\] got \[3, 3, 7, 6\]"):
        _layer(CONV)(torch.randn(3, 3, 7, 6))


def test_output_keeps_the_dtype_of_the_network() -> None:
    layer = _layer(CONV)
    assert layer(torch.randn(CONV.input_shape, dtype=torch.bfloat16)).dtype == torch.bfloat16


SPARSE = {
    "conv2d_unstructured_f32_flat__baseline": CONV,
    "conv2d_unstructured_f32_n4_n4chw__baseline": replace(CONV, n=6),
    "linear_unstructured_f32_n4__baseline": LINEAR,
}


def _sparse_layer(name: str, relu: bool = False) -> SwappedLayer:
    torch.manual_seed(0)
    problem = SPARSE[name].with_sparsity("unstructured", 0.5)
    weight, bias = torch.randn(problem.weight_shape), torch.randn(problem.c_out)
    weight *= torch.rand_like(weight) < 0.5
    return SwappedLayer(problem, kernel_named(name), weight=weight, bias=bias, relu=relu)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("name", SPARSE)
def test_operator_passes_every_opcheck(name: str, residual: bool) -> None:
    layer = _sparse_layer(name)
    added = torch.randn(layer.problem.output_shape) if residual else None
    x = torch.randn(layer.problem.input_shape)
    torch.library.opcheck(torch.ops.sparseplan.run_layer.default, (x, layer.weight, layer.bias, added, layer.call))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", [name for name in SPARSE if name.startswith("conv2d")])
def test_a_residual_of_any_memory_order_is_added_before_the_relu(name: str, memory_format: torch.memory_format) -> None:
    layer = _sparse_layer(name, relu=True)
    x = torch.randn(layer.problem.input_shape)
    added = torch.randn(layer.problem.output_shape).contiguous(memory_format=memory_format)
    expected = (nn.functional.conv2d(x, layer.weight, layer.bias, padding=1) + added).relu()
    torch.testing.assert_close(layer(x, added), expected, rtol=1e-4, atol=1e-5)


def test_the_operator_passes_opcheck_where_activations_stay_blocked() -> None:
    plain = _sparse_layer("conv2d_unstructured_f32_n4_n4chw__baseline")
    layer = SwappedLayer(
        plain.problem, plain.kernel, weight=plain.weight, bias=plain.bias, relu=False, gives_blocked=True
    )
    x = to_layout(torch.randn(layer.problem.input_shape), "n4chw")
    torch.library.opcheck(torch.ops.sparseplan.run_layer.default, (x, layer.weight, layer.bias, None, layer.call))
    assert layer(x).shape == (2, 5, 7, 6, 4)


def test_casting_a_network_leaves_packed_layers_and_their_weights_alone() -> None:
    layer = _layer(CONV)
    nn.Sequential(layer).to(torch.bfloat16)
    assert layer.weight.dtype == torch.float32


def test_a_program_in_a_fresh_process_packs_the_layer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = _sparse_layer("conv2d_unstructured_f32_flat__baseline")
    x = torch.randn(layer.problem.input_shape)
    expected = layer(x)
    weight, bias, call = layer.weight, layer.bias, layer.call
    monkeypatch.setattr(swapped_layer, "_LAYERS", {})
    monkeypatch.setattr(swapped_layer, "_LOADED", {})
    torch.testing.assert_close(torch.ops.sparseplan.run_layer(x, weight, bias, None, call), expected)
    assert list(swapped_layer._LOADED) == [call]


def test_a_loaded_program_whose_kernel_cannot_run_here_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = _sparse_layer("conv2d_unstructured_f32_flat__baseline")
    call = layer.call.replace("flat__baseline", "flat__avx512")
    monkeypatch.setattr(swapped_layer, "machine_here", lambda _: Machine(isa=("baseline",)))
    with pytest.raises(UnsupportedError, match=r"avx512.*loaded program.*plan"):
        torch.ops.sparseplan.run_layer(torch.randn(CONV.input_shape), layer.weight, layer.bias, None, call)


def test_a_conv1d_runs_as_images_of_height_one() -> None:
    torch.manual_seed(0)
    module = nn.Conv1d(3, 5, 3, padding=1)
    problem = Problem(op="conv2d", n=2, c_in=3, c_out=5, h_in=1, w_in=9, kernel=(1, 3), padding=(0, 1))
    kernel = kernel_named("conv2d_unstructured_f32_flat__baseline")
    layer = SwappedLayer.of(module, problem.with_sparsity("unstructured", 0.0), kernel, relu=True)
    x, added = torch.randn(2, 3, 9), torch.randn(2, 5, 9)
    torch.testing.assert_close(layer(x, added), (module(x) + added).relu().detach(), rtol=1e-4, atol=1e-5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, added), layer(x, added))


@pytest.mark.parametrize("problem", [CONV, LINEAR])
def test_works_under_torch_compile(problem: Problem) -> None:
    layer = _layer(problem, "nhwc" if problem.op == "conv2d" else "nchw")
    network = nn.Sequential(layer, nn.ReLU())
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    x = torch.randn(problem.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x))


def test_copies_share_the_packed_layer() -> None:
    layer = _layer(CONV)
    assert copy.deepcopy(nn.Sequential(layer))[0] is layer


@pytest.mark.parametrize("images", [1, 2, 3, 7])
def test_fixed_batch_takes_any_number_of_images(images: int) -> None:
    layer = _layer(CONV)
    x = torch.randn(images, *CONV.input_shape[1:])
    torch.testing.assert_close(FixedBatch(layer, batch=2)(x), _expected(layer, x))
