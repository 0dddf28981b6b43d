"""Reorders between layouts, against torch's own permutations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseplan.kernels import _native
from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.layout import BLOCK_IMAGES, activation_shape, is_in_layout
from sparseplan.kernels.reorder import ISA_OF_BLOCK, from_layout, reorder, reorder_cost, to_layout
from sparseplan.kernels.spec import Layout

BLOCKED = [layout for layout, block in BLOCK_IMAGES.items() if ISA_OF_BLOCK[block] in _native.isa_list()]
NETWORK: tuple[Layout, ...] = ("nchw", "nhwc")


def _in_network_layout(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last if layout == "nhwc" else torch.contiguous_format)


def _blocked(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """By the definition of the layout."""
    block = BLOCK_IMAGES[layout]
    padding = torch.zeros(-len(x) % block, *x.shape[1:])
    return torch.cat([x, padding]).view(-1, block, *x.shape[1:]).permute(0, 2, 3, 4, 1).contiguous()


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_there_and_back(data: st.DataObject) -> None:
    n, channels, height, width = (data.draw(st.integers(1, high)) for high in (35, 40, 6, 9))
    x = torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    threads = torch.get_num_threads()
    torch.set_num_threads(data.draw(st.integers(1, 3)))
    try:
        for layout in BLOCKED:
            expected = _blocked(x, layout)
            for network in NETWORK:
                blocked = reorder(_in_network_layout(x, network), network, layout)
                assert torch.equal(blocked, expected)
                blocked[-1, ..., n % BLOCK_IMAGES[layout] or BLOCK_IMAGES[layout] :] = math.nan
                back = reorder(blocked, layout, network, images=n)
                assert torch.equal(back, x)
                assert is_in_layout(back, network)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("layout", [*NETWORK, *BLOCKED])
def test_to_and_from_a_layout(layout: Layout) -> None:
    x = torch.randn(18, 5, 3, 4)
    for source in NETWORK:
        taken = to_layout(_in_network_layout(x, source), layout)
        assert tuple(taken.shape) == activation_shape((18, 5, 3, 4), layout)
        assert is_in_layout(taken, layout)
        assert torch.equal(from_layout(taken, layout, 18), x)


def test_what_is_in_its_layout_is_not_copied() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert to_layout(x, "nchw") is x
    assert reorder(x, "nchw", "nchw") is x
    rows = torch.randn(2, 3)
    assert to_layout(rows, "nhwc") is rows


@pytest.mark.parametrize("layout", BLOCKED)
def test_wrong_tensors_are_refused(layout: Layout) -> None:
    x = torch.randn(3, 4, 5, 6)
    for wrong in (x.double(), x[0], x[:0], x.to("meta")):
        with pytest.raises(InputError, match="reorder from nchw got"):
            reorder(wrong, "nchw", layout)
    blocked = reorder(x, "nchw", layout)
    for wrong in (x, blocked[..., :-1], blocked.to(torch.bfloat16)):
        with pytest.raises(InputError, match=f"reorder from {layout} got"):
            reorder(wrong, layout, "nchw")
    for images in (0, 1000):
        with pytest.raises(InputError, match=f"not {images} images"):
            reorder(blocked, layout, "nchw", images=images)


@pytest.mark.skipif(len(BLOCKED) < 2, reason="this CPU has vectors of one width")
def test_blocks_of_two_widths_have_no_direct_way() -> None:
    with pytest.raises(UnsupportedError, match="no reorder leads from n8chw to n4chw"):
        reorder(torch.randn(1, 2, 3, 4, 8), "n8chw", "n4chw")
    with pytest.raises(UnsupportedError, match="no reorder leads"):
        reorder_cost((1, 2, 3, 4), "n8chw", "n4chw")


def test_native_code_guards_memory() -> None:
    x, y = torch.randn(3, 2, 2, 2), torch.empty(1, 2, 2, 2, 4)
    sizes = {"n": 3, "channels": 2, "pixels": 4, "threads": 1, "x_bytes": x.nbytes, "y_bytes": y.nbytes}

    def call(source: str = "nchw", target: str = "blocked", **changes: int) -> None:
        _native.reorder(
            isa="baseline", source=source, target=target, x=x.data_ptr(), y=y.data_ptr(), **(sizes | changes)
        )

    call()
    for changes in ({"n": 4}, {"channels": 3}, {"pixels": 5}, {"x_bytes": 0}, {"y_bytes": 1}):
        with pytest.raises(ValueError, match="differs from the sizes"):
            call(**changes)
    with pytest.raises(ValueError, match="at least 1"):
        call(threads=0)
    for source, target in (("nchw", "nhwc"), ("blocked", "blocked"), ("n4chw", "nchw")):
        with pytest.raises(ValueError, match="must be blocked"):
            call(source, target)


def test_cost_counts_bytes() -> None:
    assert reorder_cost((17, 5, 3, 2), "nchw", "nchw").bytes_moved == 0.0
    assert reorder_cost((17, 5, 3, 2), "nchw", "nhwc").bytes_moved == 2 * 4 * 17 * 5 * 6
    for layout in BLOCKED:
        stored = math.prod(activation_shape((17, 5, 3, 2), layout))
        planes, pixels = (reorder_cost((17, 5, 3, 2), source, layout) for source in NETWORK)
        assert planes.bytes_moved == pixels.bytes_moved == 4 * (17 * 5 * 6 + stored)
        assert planes.flop == 0.0
        assert planes.tasks == stored // 6 // BLOCK_IMAGES[layout]
        assert 1 <= pixels.tasks < planes.tasks
