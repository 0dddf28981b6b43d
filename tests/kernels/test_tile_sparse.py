"""Tile-sparse kernels through emulated tiles: every shape of the registry's tests, and what is special to them.

The text of the kernels is the one that AMX runs; only the tile instructions are emulated, and one that the hardware
would refuse ends the process.
"""

from __future__ import annotations

import ctypes
import mmap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_agreement import awkward_weights
from random_problems import random_convolutions
from test_registry import CONVOLUTIONS, LINEARS
from torch import Tensor

from sparseplan.kernels import _native
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.inputs import LayerInputs, random_inputs
from sparseplan.kernels.problem import DTYPE_BYTES, Dtype, Problem
from sparseplan.kernels.reference import error_limit, reference, relative_error
from sparseplan.kernels.reference_int8 import reference_int8
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.reorder import to_layout
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.kernels.tile_sparse import KERNELS, tile_density, tile_layout, tile_work, tiles_cost
from sparseplan.kernels.weights import make_weight

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        "avx512bf16" not in detect_machine({}).isa, reason="emulated tiles end in AVX-512 with bfloat16"
    ),
]
BLOCK: dict[Dtype, str] = {"bfloat16": "block:16x32", "int8": "block:16x64"}
DTYPES: tuple[Dtype, ...] = ("bfloat16", "int8")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

PROBLEMS = {
    "tail of tiles": Problem(op="conv2d", n=3, c_in=64, c_out=48, h_in=5, w_in=5),
    "one row of a tile": Problem(op="linear", n=1, c_in=320, c_out=40),
    "fewer rows than a tile": Problem(op="linear", n=11, c_in=704, c_out=16),
    "two tiles": Problem(op="linear", n=23, c_in=448, c_out=100),
    "three tiles": Problem(op="linear", n=47, c_in=128, c_out=33),
    "unpadded in place": Problem(op="conv2d", n=2, c_in=64, c_out=24, h_in=9, w_in=7, kernel=(3, 2)),
    "few positions in place": Problem(op="conv2d", n=2, c_in=64, c_out=24, h_in=4, w_in=4, kernel=(3, 3)),
    "grouped in place": Problem(op="conv2d", n=2, c_in=128, c_out=40, h_in=6, w_in=4, groups=2),
    "grouped copy": Problem(
        op="conv2d", n=2, c_in=80, c_out=36, h_in=6, w_in=7, kernel=(3, 3), padding=(1, 1), groups=2
    ),
    "aliasing positions": Problem(op="conv2d", n=1, c_in=512, c_out=16, h_in=3, w_in=4, kernel=(3, 3), padding=(1, 1)),
    "strided": Problem(op="conv2d", n=2, c_in=64, c_out=32, h_in=9, w_in=8, stride=(2, 2)),
    "strided dilated": Problem(
        op="conv2d",
        n=2,
        c_in=40,
        c_out=20,
        h_in=21,
        w_in=18,
        kernel=(3, 4),
        stride=(2, 3),
        padding=(1, 2),
        dilation=(3, 2),
    ),
    "padding beyond kernel": Problem(op="conv2d", n=2, c_in=33, c_out=5, h_in=3, w_in=2, padding=(3, 4)),
}


def kernel_for(problem: Problem) -> KernelSpec:
    """The kernel of the registry with its tiles emulated."""
    spec = next(spec for spec in KERNELS if spec.op == problem.op and spec.dtype == problem.dtype)
    return replace(spec, pack=partial(spec.pack.func, isa="amx_emulated"))  # type: ignore[attr-defined]


def under(problem: Problem, dtype: Dtype, sparsity: float = 0.6) -> Problem:
    return replace(problem.with_sparsity(BLOCK[dtype], sparsity), dtype=dtype)


def layer(problem: Problem, seed: int = 0) -> LayerInputs:
    generator = torch.Generator().manual_seed(seed)
    return random_inputs(problem, make_weight(problem, generator), generator)


def random_residual(problem: Problem, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if problem.dtype == "int8":
        return to_layout(torch.randint(0, 256, problem.output_shape, generator=generator).byte(), "nhwc")
    return to_layout(torch.randn(problem.output_shape, generator=generator).bfloat16(), "nhwc")


def expected_of(inputs: LayerInputs, residual: Tensor | None) -> Tensor:
    if residual is None:
        return inputs.expected()
    problem, weight, bias = inputs.problem, inputs.weight, inputs.bias
    if inputs.quantisation is not None:
        return reference_int8(
            problem, weight, bias, inputs.relu, inputs.x, quantisation=inputs.quantisation, residual=residual
        ).double()
    total = reference(problem, weight, bias, False, inputs.x) + residual.double()
    return total.clamp(min=0.0) if inputs.relu else total


def assert_agrees(inputs: LayerInputs, residual: Tensor | None = None, where: str = "") -> Tensor:
    problem = inputs.problem
    kernel = kernel_for(problem)
    _native.fill_scratch(float("nan"), torch.get_num_threads())
    y = kernel.run(inputs.pack(kernel), inputs.x_for(kernel), residual)
    assert y.dtype == inputs.x.dtype, where
    assert y.shape == problem.output_shape, where
    if problem.op == "conv2d":
        assert y.is_contiguous(memory_format=torch.channels_last), where
    assert relative_error(y, expected_of(inputs, residual)) <= error_limit(problem), where
    return y


@every_dtype
@pytest.mark.parametrize("name", [*(("conv", name) for name in CONVOLUTIONS), *(("linear", name) for name in LINEARS)])
def test_agrees_on_the_shapes_of_the_registry(name: tuple[str, str], dtype: Dtype) -> None:
    problem = (CONVOLUTIONS if name[0] == "conv" else LINEARS)[name[1]]
    for pattern in ("dense", BLOCK[dtype]):
        sized = replace(problem.with_sparsity(pattern, 0.0 if pattern == "dense" else 0.6), dtype=dtype)
        generator = torch.Generator().manual_seed(1)
        for kind, weight in awkward_weights(sized, generator, scattered=0.2).items():
            inputs = random_inputs(sized, weight, generator)
            assert_agrees(inputs, where=f"{pattern} {kind}")
            assert_agrees(replace(inputs, bias=None, relu=False), where=f"{pattern} {kind}, no bias")


@every_dtype
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_agrees_on_special_shapes(name: str, has_residual: bool, dtype: Dtype) -> None:
    problem = under(PROBLEMS[name], dtype, 0.4)
    residual = random_residual(problem) if has_residual else None
    for relu in (False, True):
        assert_agrees(replace(layer(problem), relu=relu), residual)


@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_agrees_on_random_problems(data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    channels = st.sampled_from([1, 5, 32, 33, 64, 65, 128])
    outputs = st.sampled_from([1, 7, 16, 17, 32, 47, 64])
    some = data.draw(random_convolutions(n=st.integers(1, 5), channels=channels, outputs=outputs))
    dtype, sparsity = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    problem = replace(some, dtype=dtype, pattern=BLOCK[dtype], sparsity=sparsity)
    torch.set_num_threads(draw(1, 3))
    residual = random_residual(problem) if data.draw(st.booleans()) else None
    assert_agrees(replace(layer(problem, draw(0, 1000)), relu=data.draw(st.booleans())), residual)


@every_dtype
@pytest.mark.parametrize("n", [1, 5, 9])
@pytest.mark.parametrize("name", ["tail of tiles", "two tiles", "grouped copy", "strided dilated", "unpadded in place"])
def test_threads_change_no_bit(name: str, n: int, dtype: Dtype) -> None:
    problem = replace(under(PROBLEMS[name], dtype), n=n)
    inputs, kernel = layer(problem), kernel_for(problem)
    packed, residual = inputs.pack(kernel), random_residual(problem)
    one = kernel.run(packed, inputs.x_for(kernel), residual)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(kernel.run(packed, inputs.x_for(kernel), residual), one)


def test_concurrent_runs_do_not_share_memory() -> None:
    problems = [under(PROBLEMS["grouped copy"], "bfloat16"), under(PROBLEMS["one row of a tile"], "int8")]
    layers = [(kernel_for(problem), layer(problem)) for problem in problems]
    calls = [partial(kernel.run, inputs.pack(kernel), inputs.x_for(kernel)) for kernel, inputs in layers]
    alone = [call() for call in calls]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda call: call(), calls * 10))
    assert all(torch.equal(y, alone[i % 2]) for i, y in enumerate(together))


class Fenced:
    """Bytes whose end, or start, touches a page that must not be read or written."""

    def __init__(self, values: Tensor, *, at_end: bool) -> None:
        page, count = mmap.PAGESIZE, values.nbytes
        room = -(-count // page) * page
        self.memory = mmap.mmap(-1, room + 2 * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        libc = ctypes.CDLL(None, use_errno=True)
        for fence in (base, base + page + room):
            assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(page), 0) == 0
        self.address, self.count = base + page + (room - count if at_end else 0), count
        ctypes.memmove(self.address, values.data_ptr(), count)
        self.inside = (base + page, room)

    def bytes_around(self) -> tuple[bytes, bytes]:
        start, room = self.inside
        before = ctypes.string_at(start, self.address - start)
        return before, ctypes.string_at(self.address + self.count, start + room - self.address - self.count)


@every_dtype
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_touches_nothing_outside_its_buffers(name: str, at_end: bool, dtype: Dtype) -> None:
    problem = under(PROBLEMS[name], dtype, 0.3)
    inputs, kernel = layer(problem), kernel_for(problem)
    residual = random_residual(problem)
    packed, x = inputs.pack(kernel), inputs.x_for(kernel)
    memory_format = torch.channels_last if problem.op == "conv2d" else torch.contiguous_format
    residual = residual.contiguous(memory_format=memory_format)
    y = kernel.run(packed, x, residual)
    fenced_x, fenced_residual = Fenced(x, at_end=at_end), Fenced(residual, at_end=at_end)
    fenced_y = Fenced(torch.full_like(y, 77), at_end=at_end)
    packed.native.run(
        fenced_x.address, x.nbytes, fenced_residual.address, fenced_y.address, y.nbytes, torch.get_num_threads()
    )
    written = torch.empty_like(y)
    ctypes.memmove(written.data_ptr(), fenced_y.address, y.nbytes)
    assert torch.equal(written, y)
    assert not any(map(any, fenced_y.bytes_around())), "bytes beside the output were written"


@pytest.mark.parametrize("c_in", [64, 40])
def test_nan_stays_where_it_belongs(c_in: int) -> None:
    problem = Problem(
        op="conv2d", n=2, c_in=c_in, c_out=20, h_in=6, w_in=6, kernel=(3, 3), padding=(1, 1), dtype="bfloat16"
    )
    inputs, kernel = layer(problem), kernel_for(problem)
    inputs.x[1, 0, 0, 5] = float("nan")
    y = kernel.run(inputs.pack(kernel), inputs.x_for(kernel))
    poisoned = torch.zeros(problem.output_shape, dtype=torch.bool)
    poisoned[1, :, :2, 4:] = True
    assert torch.equal(y.isnan(), poisoned)


def test_largest_int8_sums() -> None:
    """As many of the largest products as a sum may have, of either sign."""
    problem = Problem(op="linear", n=2, c_in=33155, c_out=2, dtype="int8")
    inputs = layer(problem)
    weight = torch.ones(problem.weight_shape)
    weight[1] = -1.0
    assert inputs.quantisation is not None
    quantisation = replace(inputs.quantisation, y_scale=inputs.quantisation.x_scale * 300.0)
    for stored in (0, 255):
        x = torch.full_like(inputs.x, stored)
        for zero_point in (0, 255):
            assert_agrees(
                replace(
                    inputs,
                    weight=weight,
                    bias=torch.tensor([2.0**20, -(2.0**20)]),
                    x=x,
                    quantisation=replace(quantisation, x_zero_point=zero_point),
                )
            )


@every_dtype
def test_packs_only_tiles_that_hold_a_weight(dtype: Dtype) -> None:
    depth = 64 // DTYPE_BYTES[dtype]
    problem = Problem(op="conv2d", n=1, c_in=3 * depth, c_out=40, h_in=4, w_in=4, kernel=(3, 3), dtype=dtype)
    inputs, kernel = layer(problem), kernel_for(problem)
    weight = torch.zeros(problem.weight_shape)
    assert replace(inputs, weight=weight).pack(kernel).native.tiles == 0
    weight[0, 0, 0, 0] = weight[15, depth - 1, 0, 0] = 1.0
    weight[16, 0, 2, 1] = weight[39, 2 * depth, 1, 1] = 1.0
    assert replace(inputs, weight=weight).pack(kernel).native.tiles == 3
    assert inputs.pack(kernel).native.tiles == 3 * 3 * 9 == tile_work(problem).weight_tiles


@every_dtype
def test_cost_counts_tiles(dtype: Dtype) -> None:
    problem = Problem(op="conv2d", n=2, c_in=256, c_out=128, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1))
    sized = under(problem, dtype, 0.75)
    packed = layer(sized).pack(kernel_for(sized))
    layout, work = tile_layout(sized), tile_work(sized)
    assert work.weight_tiles == packed.native.tiles
    assert layout.phases.pitch == 15, "neighbouring rows share their zeros"
    pixel_tiles = -(-(13 * 15 + 14) // 16) * 2
    assert work.products == packed.native.tiles * pixel_tiles
    assert work.stores == pixel_tiles * 128 / 16
    cost = tiles_cost(sized)
    assert sized.flop_useful < cost.flop < 1.2 * sized.flop_useful
    assert cost.unit == ("tile_bf16" if dtype == "bfloat16" else "tile_int8")
    assert cost.tasks == 2
    groups = -(-pixel_tiles // 2 // layout.tiles)
    assert tiles_cost(replace(sized, threads=3)).tasks == groups * -(-12 // groups)
    assert work.weight_loads == packed.native.tiles * groups * 2


def test_density_of_tiles() -> None:
    problem = Problem(op="linear", n=4, c_in=256, c_out=256, dtype="bfloat16")
    for pattern, expected in (
        ("block:16x32", 0.25),
        ("block:32x64", 0.25),
        ("block:16x16", 1 - 0.75**2),
        ("block:4x2", 1 - 0.75**64),
        ("unstructured", 1.0),
        ("channel", 1.0),
    ):
        assert tile_density(problem.with_sparsity(pattern, 0.75)) == pytest.approx(expected), pattern
    assert tile_density(problem) == 1.0
    int8 = replace(problem, dtype="int8")
    assert tile_density(int8.with_sparsity("block:16x32", 0.75)) == pytest.approx(1 - 0.75**2)


@every_dtype
def test_refuses_foreign_tensors(dtype: Dtype) -> None:
    problem = under(PROBLEMS["tail of tiles"], dtype)
    inputs, kernel = layer(problem), kernel_for(problem)
    for wrong in (inputs.weight[:, :3], inputs.weight.double()):
        with pytest.raises(InputError, match="weight is"):
            replace(inputs, weight=wrong).pack(kernel)
    packed, x = inputs.pack(kernel), inputs.x_for(kernel)
    for wrong in (x[:2], x[..., :4], x.float()):
        with pytest.raises(InputError, match="input is"):
            kernel.run(packed, wrong)
    y = kernel.run(packed, x)
    for wrong in (y[:2], y.float(), x):
        with pytest.raises(InputError, match="residual is"):
            kernel.run(packed, x, wrong)
    with pytest.raises(ValueError, match="differs from the packed"):
        packed.native.run(x.data_ptr(), x.nbytes - 1, 0, y.data_ptr(), y.nbytes, 1)


def native(**changes: object) -> _native.TileSparse:
    shape = {
        "images": 1, "positions": 20, "tiles": 4, "c_in": 32, "h_in": 20, "w_in": 1, "c_out": 16, "h_out": 20,
        "w_out": 1, "stride_h": 1, "stride_w": 1, "pad_h": 0, "pad_w": 0, "groups": 1, "group_room": 64,
        "position_bytes": 64, "rows": 20, "pitch": 1, "phase_positions": 20, "copies_input": False, "relu": False,
        "fill": 0,
    }  # fmt: skip
    taps = changes.pop("taps", [0])
    shape = _native.TilesShape(**(shape | changes))  # type: ignore[arg-type]
    weight = torch.ones(16, 32, 1).numpy()
    return _native.TileSparse(
        isa="amx_emulated", shape=shape, phases_h=[0], phases_w=[0], weight=weight, taps=taps, bias=None
    )


def test_native_side_guards_memory() -> None:
    assert native().tiles == 1
    for changes, message in (
        ({"tiles": 5}, "registers"),
        ({"tiles": 0}, "registers"),
        ({"group_room": 128}, "fill its tiles"),
        ({"position_bytes": 128}, "position_bytes"),
        ({"positions": 21, "h_out": 21}, "taps leave"),
        ({"positions": 19}, "positions do not cover"),
        ({"taps": [1]}, "taps leave"),
        ({"taps": [-1]}, "taps leave"),
        ({"taps": [0, 0]}, "taps differ"),
        ({"c_out": 32}, "weight rows"),
        ({"c_in": 64}, "weight columns"),
        ({"groups": 3}, "groups must divide"),
    ):
        with pytest.raises(ValueError, match=message):
            native(**changes)


def test_emulated_tiles_are_for_tests_only() -> None:
    assert "amx_emulated" not in _native.isa_list()
    assert all(spec.isa != "amx_emulated" for spec in REGISTRY)


@pytest.mark.skipif("amx" in detect_machine({}).isa, reason="this machine has AMX")
def test_real_tiles_need_the_hardware() -> None:
    problem = under(PROBLEMS["two tiles"], "bfloat16")
    spec = next(spec for spec in KERNELS if spec.op == "linear" and spec.dtype == "bfloat16")
    assert "needs amx" in (spec.why_unsupported(problem, detect_machine({})) or "")
    with pytest.raises(ValueError, match="no instruction set 'amx'"):
        layer(problem).pack(spec)


def test_reasons_name_what_is_missing() -> None:
    everything = Machine(isa=("baseline", "avx2", "avx512", "amx"))
    conv_bf16, conv_int8, linear_bf16, _ = KERNELS
    problem = Problem(op="conv2d", n=2, c_in=64, c_out=64, h_in=8, w_in=8, dtype="bfloat16")
    assert conv_bf16.why_unsupported(problem, everything) is None
    assert "linear" in (linear_bf16.why_unsupported(problem, everything) or "")
    assert "int8" in (conv_int8.why_unsupported(problem, everything) or "")
    assert "sas" in (conv_bf16.why_unsupported(problem.with_sparsity("sas:1:2", 0.0), everything) or "")
    assert "groups of 4 channels" in (conv_bf16.why_unsupported(replace(problem, groups=16), everything) or "")
    assert conv_bf16.why_unsupported(replace(problem, groups=4), everything) is None
    huge = replace(problem, c_in=4096, h_in=1024, w_in=1024, padding=(1, 1), kernel=(3, 3))
    assert "2 GiB" in (conv_bf16.why_unsupported(huge, everything) or "")
    long = replace(problem, dtype="int8", c_in=4096, kernel=(3, 3))
    assert "overflow" in (conv_int8.why_unsupported(long, everything) or "")
