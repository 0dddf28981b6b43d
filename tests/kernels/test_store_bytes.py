"""Bytes in one pass are those of the plain definition, for every size, order and end."""

from __future__ import annotations

import pytest
import torch

from sparseplan.kernels.quantisation import dequantise, quantise
from sparseplan.kernels.store_bytes import FEW, load_bytes, store_bytes


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 8191, 8193, FEW + 3])
@pytest.mark.parametrize(("scale", "zero_point"), [(0.03, 128), (1.7, 0), (1e-3, 255)])
def test_bytes_and_reals_are_those_of_the_definition(count: int, scale: float, zero_point: int) -> None:
    x = torch.randn(count, generator=torch.Generator().manual_seed(count)) * 100.0 * scale
    stored = store_bytes(x, scale, zero_point)
    assert torch.equal(stored, quantise(x, scale, zero_point))
    assert torch.equal(load_bytes(stored, scale, zero_point), dequantise(stored, scale, zero_point))


def test_values_beyond_every_integer_and_ties_are_stored_right() -> None:
    x = torch.tensor([1e30, -1e30, float("inf"), -float("inf"), 0.5, 1.5, 2.5, -0.5, -1.5, 0.0])
    assert store_bytes(x, 1.0, 7).tolist() == [255, 0, 255, 0, 7, 9, 9, 7, 5, 7]


def test_the_memory_order_stays_and_gaps_do_not_matter() -> None:
    x = torch.randn(2, 3, 5, 4).contiguous(memory_format=torch.channels_last)
    stored = store_bytes(x, 0.02, 100)
    assert stored.is_contiguous(memory_format=torch.channels_last)
    assert load_bytes(stored, 0.02, 100).is_contiguous(memory_format=torch.channels_last)
    apart = torch.randn(6, 8, 4)[:, ::2]
    assert torch.equal(store_bytes(apart, 0.02, 100), quantise(apart, 0.02, 100))
    half = x.to(torch.bfloat16)
    assert torch.equal(store_bytes(half, 0.02, 100), quantise(half, 0.02, 100))
