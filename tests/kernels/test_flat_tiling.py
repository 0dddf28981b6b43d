"""How the flat sparse convolution is cut, and that every cut computes the same."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_agreement import assert_agrees, random_layer

from sparseplan.kernels.conv2d_unstructured import KERNELS
from sparseplan.kernels.cpu import USUAL_CACHE_BYTES, cache_bytes, detect_machine
from sparseplan.kernels.flat_sparse import FLAT_VARIANTS, flat_cost, flat_shape
from sparseplan.kernels.flat_tiling import MAX_TILE_ROWS, choose_tiling
from sparseplan.kernels.problem import Problem

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


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    assert 1 <= tile.rows <= min(MAX_TILE_ROWS, shape.area.rows)
    assert 1 <= tile.columns <= shape.area.columns
    assert tile.rows * tile.columns <= isa.max_tile
    assert tiling.c_block * tiling.c_blocks >= channels > tiling.c_block * (tiling.c_blocks - 1)
    assert 1 <= tiling.k_block <= problem.c_out


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
    assert {level: cache_bytes(level, tmp_path) for level in (1, 2)} == USUAL_CACHE_BYTES
