"""Which kernels a network gets at a fixed sparsity."""

from __future__ import annotations

from benchmarks.networks.fixed_sparsity import Timed

NCHW = "conv2d_unstructured_f32_n16__avx512"
NHWC = "conv2d_unstructured_f32_n16_nhwc__avx512"
FLAT_NHWC = "conv2d_unstructured_f32_flat_nhwc__avx512"
LINEAR = "linear_unstructured_f32_n16__avx512"


def test_a_layer_gets_the_fastest_kernel_of_the_networks_layout() -> None:
    timed = Timed(dense_s=4e-3, sparse_s={NCHW: 1e-3, NHWC: 3e-3, FLAT_NHWC: 2e-3})
    names = [None if (kernel := timed.winner(layout)) is None else kernel.name for layout in ("nchw", "nhwc", "n16chw")]
    assert names == [NCHW, FLAT_NHWC, None]


def test_a_layer_stays_dense_where_no_kernel_beats_it() -> None:
    assert Timed(dense_s=1.5e-3, sparse_s={NHWC: 3e-3}).winner("nhwc") is None


def test_linears_fit_every_layout() -> None:
    linear = Timed(dense_s=2e-3, sparse_s={LINEAR: 1e-3})
    assert all((kernel := linear.winner(layout)) is not None and kernel.name == LINEAR for layout in ("nchw", "n16chw"))
