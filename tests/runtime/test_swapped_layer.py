"""The operator behind swapped layers: eager, compiled, and refused shapes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import kernel_named
from sparseplan.kernels.spec import Cost, KernelSpec, Layout
from sparseplan.runtime.fixed_batch import FixedBatch
from sparseplan.runtime.swapped_layer import SwappedLayer

CONV = Problem(op="conv2d", n=2, c_in=3, c_out=5, h_in=7, w_in=6, kernel=(3, 3), padding=(1, 1))
LINEAR = Problem(op="linear", n=6, c_in=4, c_out=3)


def _torch_kernel(problem: Problem, layout: Layout) -> KernelSpec:
    """A kernel whose packed form is its arguments."""

    def run(packed: tuple[Tensor, Tensor | None, bool], x: Tensor) -> Tensor:
        weight, bias, relu = packed
        if problem.op == "linear":
            y = nn.functional.linear(x, weight[:, :, 0, 0], bias)
        else:
            y = nn.functional.conv2d(x, weight, bias, problem.stride, problem.padding)
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


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_operator_passes_opcheck(layout: Layout) -> None:
    layer = _layer(CONV, layout)
    arguments = (torch.randn(CONV.input_shape), layer.key, list(CONV.output_shape), layout == "nhwc")
    torch.library.opcheck(
        torch.ops.sparseplan.run_layer.default, arguments, test_utils=("test_schema", "test_faketensor")
    )


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
