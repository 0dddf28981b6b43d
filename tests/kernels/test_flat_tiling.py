"""How the flat sparse convolution is cut, and that every cut computes the same."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_agreement import assert_agrees, exact, random_layer, windows_everywhere

from sparseplan.kernels import flat_sparse, flat_tiling
from sparseplan.kernels.conv2d_unstructured import KERNELS
from sparseplan.kernels.cpu import USUAL_CACHE_BYTES, cache_bytes, detect_machine
from sparseplan.kernels.flat_cost import flat_cost, share_flat
from sparseplan.kernels.flat_sparse import FLAT_VARIANTS, FlatShape, flat_shape
from sparseplan.kernels.flat_tiling import MAX_TILE_ROWS, Area, Tile, choose_tiling
from sparseplan.kernels.native_layer import InstructionSet
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reorder import from_layout, to_layout

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = detect_machine({})
CACHES = (32 * 1024, 1024 * 1024)


def conv(**sizes: object) -> Problem:
    defaults = {
        "op": "conv2d",
        "pattern": "unstructured",
        "sparsity": 0.9,
        "n": 16,
        "kernel": (3, 3),
        "padding": (1, 1),
    }
    return Problem(**(defaults | {"c_in": 192, "c_out": 128, "h_in": 13, "w_in": 13} | sizes))  # type: ignore[arg-type]


every_variant = pytest.mark.parametrize("isa", FLAT_VARIANTS, ids=lambda isa: f"{isa.name}x{isa.lanes}")


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    isa=st.sampled_from(FLAT_VARIANTS),
    interleaved=st.booleans(),
    channels=st.integers(1, 700),
    size=st.integers(1, 80),
    taps=st.integers(1, 7),
    sparsity=st.floats(0.0, 1.0),
)
def test_cuts_fit_the_registers_and_cover_all_channels(
    isa, interleaved: bool, channels: int, size: int, taps: int, sparsity: float
) -> None:
    problem = conv(
        c_in=channels, h_in=size, w_in=size, kernel=(taps, taps), padding=(taps // 2,) * 2, sparsity=sparsity
    )
    shape = flat_shape(problem, isa, interleaved=interleaved)
    tile, tiling = shape.tiling.tile, shape.tiling
    assert 1 <= tile.rows <= shape.area.rows
    assert 1 <= tile.columns <= shape.area.columns
    if tiling.quad is None:
        assert tile.rows <= MAX_TILE_ROWS
        assert tile.rows * tile.columns <= isa.max_tile
    else:
        assert tiling.quad.rows * tiling.quad.columns <= isa.max_quad
        assert tiling.k_block % tiling.k_chunk == 0
    assert tiling.c_block * tiling.c_blocks >= channels > tiling.c_block * (tiling.c_blocks - 1)
    assert 1 <= tiling.k_block <= math.ceil(problem.c_out / tiling.k_chunk) * tiling.k_chunk


@every_variant
def test_short_rows_want_larger_blocks(isa) -> None:
    blocks = [
        flat_shape(conv(sparsity=sparsity), isa, interleaved=True).tiling.c_block for sparsity in (0.5, 0.9, 0.97)
    ]
    assert blocks[0] < blocks[2]
    assert blocks == sorted(blocks)


@every_variant
def test_larger_caches_hold_larger_blocks(isa) -> None:
    area = flat_shape(conv(), isa, interleaved=True).area
    small, large = (choose_tiling(conv(), area, isa, (size, CACHES[1])) for size in (16 * 1024, 256 * 1024))
    assert small.c_block < large.c_block
    assert small.streamed_vectors > large.streamed_vectors
    few, many = (choose_tiling(conv(c_out=4096), area, isa, (CACHES[0], size)) for size in (2**18, 2**24))
    assert few.k_block < many.k_block == 4096


@every_variant
def test_interleaved_tiles_compute_nothing_in_vain(isa) -> None:
    problem = conv(n=32)
    assert math.isclose(flat_cost(problem, isa, interleaved=True).flop, problem.flop_useful)
    assert flat_cost(problem, isa, interleaved=False).flop > problem.flop_useful


@pytest.mark.parametrize("spec", [spec for spec in KERNELS if spec.isa in MACHINE.isa], ids=lambda spec: spec.name)
@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 9, 13, 29])
def test_tiles_of_every_shape_agree(spec, width: int) -> None:
    problem = conv(n=16, c_in=5, c_out=6, h_in=11, w_in=width, sparsity=0.6)
    assert_agrees(spec, problem, *random_layer(problem), relu=True)


@pytest.mark.parametrize("spec", [spec for spec in KERNELS if spec.isa in MACHINE.isa], ids=lambda spec: spec.name)
@pytest.mark.parametrize("sizes", [{"c_out": 2}, {"c_out": 70}, {"padding": (5, 0)}, {"stride": (2, 2)}], ids=str)
def test_threads_copy_what_they_need(spec, sizes: dict[str, object]) -> None:
    """Scratch memory is full of NaN: a row that a thread needs and does not copy shows."""
    problem = conv(**({"n": 9, "c_in": 4, "c_out": 3, "h_in": 40, "w_in": 33, "sparsity": 0.5} | sizes))
    x, weight, bias = random_layer(problem)
    alone = assert_agrees(spec, problem, x, weight, bias)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert torch.equal(assert_agrees(spec, problem, x, weight, bias), alone)


def taken_by_each(shape: FlatShape, order: list[int], threads: int) -> list[list[int]]:
    """Tiles of the tasks of each thread: equal numbers of many, nearly equal work of few."""
    count, area, tile = len(order), shape.area, shape.tiling.tile
    if count >= 32 * threads:
        edges = [count * thread // threads for thread in range(threads + 1)]
    else:
        down, across = math.ceil(area.rows / tile.rows), math.ceil(area.columns / tile.columns)
        work = [
            len(range(area.rows * (number // across) // down, area.rows * (number // across + 1) // down))
            * len(range(area.columns * (number % across) // across, area.columns * (number % across + 1) // across))
            for number in order
        ]
        # Each task is its whose equal share holds the task's middle.
        middles = [2 * sum(work[:task]) + work[task] for task in range(count)]
        edges = [sum(middle * threads < 2 * sum(work) * t for middle in middles) for t in range(threads + 1)]
    return [order[begin:end] for begin, end in pairwise(edges)]


def copied_plainly(
    shape: FlatShape, lanes: int, h_out: int, tasks: list[list[int]], window_passes: int | None
) -> float:
    """Rows of the padded input, tiles of it or windows, that threads copy: one position after the other."""
    area, tile = shape.area, shape.tiling.tile
    down, across = math.ceil(area.rows / tile.rows), math.ceil(area.columns / tile.columns)
    copied = 0.0
    for tiles in tasks:
        if shape.copies_tiles or shape.window_channels > 0:
            passes = 1 if shape.copies_tiles else window_passes
            if passes is None:
                return math.nan
            copied += passes * sum(index == 0 or tiles[index - 1] != number for index, number in enumerate(tiles))
            continue
        read = set()
        # From the last tiles of one part of the channels to the first of the next: all rows, those between as well.
        wraps = any(later < earlier for earlier, later in pairwise(tiles))
        for number in range(down * across) if wraps else set(tiles):
            rows = range(area.rows * (number // across) // down, area.rows * (number // across + 1) // down)
            columns = range(area.columns * (number % across) // across, area.columns * (number % across + 1) // across)
            starts = set(rows)
            if area.rows == 1:
                pitch = shape.phases.pitch * shape.images
                values = (vector * lanes + lane for vector in columns for lane in range(lanes))
                starts = {value // pitch + beyond for value in values for beyond in (0, 1)}
            read |= {row + tap for row in starts for tap in range(shape.phases.rows - h_out + 1)}
        copied += len({row for row in read if row < shape.phases.rows}) / shape.phases.rows if read else 0.0
    return copied


@pytest.mark.parametrize(
    "spec", [spec for spec in KERNELS if spec.isa in MACHINE.isa and "_flat" in spec.name], ids=lambda spec: spec.name
)
@pytest.mark.parametrize("c_out", [16, 33, 64, 200])
def test_threads_share_pointwise_layers(spec, c_out: int) -> None:
    """Channels are shared in whole chunks of quads: some part may have none."""
    problem = conv(n=1, c_in=40, c_out=c_out, h_in=30, w_in=28, kernel=(1, 1), padding=(0, 0), sparsity=0.8)
    x, weight, bias = random_layer(problem)
    alone = assert_agrees(spec, problem, x, weight, bias)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        assert torch.equal(assert_agrees(spec, problem, x, weight, bias), alone)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(
    isa=st.sampled_from(FLAT_VARIANTS),
    interleaved=st.booleans(),
    layout=st.sampled_from(["nchw", "nhwc"]),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    n=st.integers(1, 40),
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40)),
    sparsity=st.floats(0.0, 1.0),
    threads=st.integers(1, 7),
)
def test_cost_counts_what_each_thread_copies(
    isa, interleaved: bool, layout, kernel: int, stride: int, n: int, sizes, sparsity: float, threads: int
) -> None:
    c_in, c_out, size = sizes
    problem = conv(
        n=n, c_in=c_in, c_out=c_out, h_in=size, w_in=size + 1, kernel=(kernel, kernel), padding=(kernel // 2,) * 2
    )
    problem = replace(problem, stride=(stride, stride), sparsity=sparsity, threads=threads)
    shape = flat_shape(problem, isa, interleaved=interleaved, layout=layout)
    sharing, tiles = share_flat(problem, shape, isa), shape.area.tiles(shape.tiling.tile)
    blocks = math.ceil(n / shape.images)
    if blocks % threads == 0 or blocks >= 4 * threads:
        assert sharing.tasks == blocks
        passes = math.ceil(c_out / shape.tiling.k_block)
        assert sharing.copies == blocks * (
            tiles * passes if shape.window_channels > 0 else tiles if shape.copies_tiles else 1
        )
        return
    parts, rest = divmod(sharing.tasks, tiles)
    assert rest == 0
    orders = (
        [tile for tile in range(tiles) for _ in range(parts)],
        [tile for _ in range(parts) for tile in range(tiles)],
    )
    plain = [
        blocks
        * copied_plainly(
            shape,
            isa.lanes,
            problem.h_out,
            taken_by_each(shape, order, threads),
            math.ceil(c_out / shape.tiling.k_block) if parts == 1 else None,
        )
        for order in orders
    ]
    assert any(math.isclose(sharing.copies, copies) or math.isnan(copies) for copies in plain)


def test_windows_hold_blocks_of_channels_of_large_input() -> None:
    widest, *_ = FLAT_VARIANTS
    layer = conv(n=16, c_in=100, c_out=64, h_in=56, w_in=56)
    for strided in (layer, replace(layer, stride=(2, 2))):
        for layout in ("nhwc", "n16chw"):
            shape = flat_shape(strided, widest, interleaved=True, layout=layout)
            assert shape.window_channels % shape.tiling.c_block == 0
            assert (shape.phases.rows, shape.phases.pitch) == (
                shape.tiling.tile.rows + 3 - strided.stride[0],
                shape.tiling.tile.columns + 3 - strided.stride[0],
            )
            if layout == "nhwc":
                assert shape.window_channels % widest.lanes == 0, "whole lines are transposed"
    distant, grouped, near = (
        replace(layer, dilation=(9, 9), padding=(9, 9)),
        replace(layer, groups=2),
        replace(layer, h_in=7),
    )
    for other in (distant, grouped, near):
        assert flat_shape(other, widest, interleaved=True, layout="n16chw").window_channels == 0
    assert flat_shape(layer, widest, interleaved=True, layout="nchw").window_channels == 0


@pytest.fixture
def only_windows() -> Iterator[None]:
    with windows_everywhere():
        yield


WINDOWED = [spec for spec in KERNELS if spec.isa in MACHINE.isa and spec.layout != "nchw" and "_flat" not in spec.name]


@pytest.mark.usefixtures("only_windows")
@pytest.mark.parametrize("spec", WINDOWED, ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"stride": (2, 2)},
        {"stride": (3, 2), "padding": (0, 4), "kernel": (2, 5)},
        {"dilation": (2, 3), "padding": (7, 0)},
        {"kernel": (1, 1), "padding": (2, 3), "stride": (4, 1)},
        {"c_in": 37, "c_out": 70},
        {"h_in": 1, "w_in": 2},
    ],
    ids=str,
)
def test_windows_agree(spec, sizes: dict[str, object]) -> None:
    """Few channels a block and odd sizes; scratch memory is full of NaN, which shows what is read and not copied."""
    problem = conv(**({"n": 19, "c_in": 21, "c_out": 18, "h_in": 13, "w_in": 9, "sparsity": 0.7} | sizes))
    x, weight, bias = random_layer(problem)
    residual = torch.randn(problem.output_shape, generator=torch.Generator().manual_seed(1))
    alone = assert_agrees(spec, problem, x, weight, bias, relu=True, residual=residual)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(assert_agrees(spec, problem, x, weight, bias, relu=True, residual=residual), alone)


def test_pointwise_layers_are_computed_in_quads() -> None:
    """Small tiles with many input channels in level 1: rows of non-zeros are long, sums seldom pass through memory."""
    problem = conv(kernel=(1, 1), padding=(0, 0), c_in=256, c_out=256, h_in=14, w_in=14)
    widest, *_ = FLAT_VARIANTS
    shape = flat_shape(problem, widest, interleaved=True, layout="nhwc")
    assert shape.tiling.quad is not None
    assert shape.copies_tiles
    cost = flat_cost(problem, widest, interleaved=True, layout="nhwc")
    assert problem.flop_useful < cost.flop < 1.1 * problem.flop_useful, "shorter rows are filled up with zeros"


@pytest.fixture
def only_quads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every layer in quads where the instruction set has them, and every blocked output past the caches."""
    cuts = flat_tiling.cuts_of

    def quads_of(area: Area, isa: InstructionSet) -> list[tuple[Tile, Tile | None]]:
        return [cut for cut in cuts(area, isa) if cut[1] is not None] or list(cuts(area, isa))

    monkeypatch.setattr(flat_tiling, "cuts_of", quads_of)
    monkeypatch.setattr(flat_sparse, "LAST_CACHE_FRAC", 0.0)
    flat_tiling.choose_tiling.cache_clear()
    yield
    flat_tiling.choose_tiling.cache_clear()


@pytest.mark.usefixtures("only_quads", "only_windows")
@pytest.mark.parametrize("spec", WINDOWED, ids=lambda spec: spec.name)
@pytest.mark.parametrize("stride", [1, 2])
def test_windows_agree_in_quads(spec, stride: int) -> None:
    problem = conv(n=17, c_in=21, c_out=18, h_in=9, w_in=13, sparsity=0.6, stride=(stride, stride))
    assert_agrees(spec, problem, *random_layer(problem), relu=True)


@pytest.mark.usefixtures("only_quads")
@pytest.mark.parametrize("spec", [spec for spec in KERNELS if spec.isa in MACHINE.isa], ids=lambda spec: spec.name)
@pytest.mark.parametrize(
    "sizes",
    [
        {"c_out": 1, "c_in": 1},
        {"c_out": 6},
        {"c_out": 67, "c_in": 130, "h_in": 5},
        {"c_out": 70, "kernel": (1, 1), "padding": (0, 0), "stride": (2, 3)},
        {"c_out": 35, "kernel": (1, 1), "padding": (0, 0), "c_in": 200},
        {"c_out": 9, "c_in": 6, "groups": 3},
        {"sparsity": 0.0},
        {"sparsity": 1.0},
    ],
    ids=str,
)
def test_quads_agree(spec, sizes: dict[str, object]) -> None:
    problem = conv(**({"n": 17, "c_in": 7, "c_out": 21, "h_in": 11, "w_in": 9, "sparsity": 0.6} | sizes))
    x, weight, bias = random_layer(problem)
    assert_agrees(spec, problem, x, weight, bias, relu=True)
    alone = assert_agrees(spec, problem, x, weight, None, residual=torch.randn(problem.output_shape), relu=True)
    torch.set_num_threads(3)
    torch.manual_seed(0)
    residual = torch.randn(problem.output_shape)
    shared = assert_agrees(spec, problem, x, weight, bias, residual=residual)
    torch.set_num_threads(1)
    assert torch.equal(assert_agrees(spec, problem, x, weight, bias, residual=residual), shared)
    assert alone.min() >= 0.0


@pytest.mark.usefixtures("only_quads")
@pytest.mark.parametrize("spec", [spec for spec in KERNELS if spec.isa in MACHINE.isa], ids=lambda spec: spec.name)
def test_quads_read_only_what_their_channels_may(spec) -> None:
    """Shorter rows are filled up with zeros of their own: a NaN spreads as in torch, which multiplies zeros too."""
    problem = conv(n=16, c_in=12, c_out=13, h_in=5, w_in=6, sparsity=0.7)
    x, weight, bias = random_layer(problem)
    x[5, 3, 0, 0] = float("nan")
    y = from_layout(spec.run(spec.pack(problem, weight, bias, False), to_layout(x, spec.layout)), spec.layout, 16)
    may = torch.zeros(problem.output_shape, dtype=torch.bool)
    may[5, :, :2, :2] = True
    must = exact(problem, x.nan_to_num(1e30), weight, None).abs() > 1e20
    assert torch.all(y.isnan() <= may)
    assert torch.all(y.isnan() >= must)


@every_variant
def test_strided_copies_are_shared_by_rows(isa) -> None:
    """Many tiles and few weights: the second thread copies the halo again, not the image."""
    problem = conv(n=1, c_in=64, c_out=16, h_in=112, w_in=112, stride=(2, 2), sparsity=0.95)
    alone, shared = (flat_cost(replace(problem, threads=threads), isa, interleaved=False) for threads in (1, 2))
    assert alone.values_dealt < shared.values_dealt < 1.25 * alone.values_dealt


def write_cache(folder: Path, level: str, kind: str, size: str) -> None:
    folder.mkdir()
    for name, text in (("level", level), ("type", kind), ("size", size)):
        (folder / name).write_text(text + "\n")


def test_cache_sizes_come_from_the_system(tmp_path: Path) -> None:
    write_cache(tmp_path / "index0", "1", "Instruction", "64K")
    write_cache(tmp_path / "index1", "1", "Data", "48K")
    write_cache(tmp_path / "index2", "2", "Unified", "2048K")
    assert cache_bytes(1, tmp_path) == 48 * 1024
    assert cache_bytes(2, tmp_path) == 2048 * 1024


def test_unknown_cache_sizes_are_the_usual_ones(tmp_path: Path) -> None:
    write_cache(tmp_path / "index0", "1", "Data", "plenty")
    (tmp_path / "index1").mkdir()
    assert {level: cache_bytes(level, tmp_path) for level in (1, 2, 3)} == USUAL_CACHE_BYTES
