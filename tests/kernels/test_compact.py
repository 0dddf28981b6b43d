"""Compaction: what survives, what is skipped, and that removed filters still give their bias."""

from dataclasses import replace

import pytest
import torch

from sparseplan.kernels import compact, dense, shape
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import kernel_named
from sparseplan.kernels.spec import Machine

CONV = Problem(op="conv2d", n=2, c_in=8, c_out=6, h_in=5, w_in=5, kernel=(3, 3), padding=(1, 1))
MACHINE = Machine(isa=("baseline", "avx2", "avx512"), torch_ops=dense.CONV_OPS + dense.LINEAR_OPS)
COMPACT = kernel_named("conv2d_compact_f32_nhwc__onednn")
SHAPE = kernel_named("conv2d_shape_f32_nchw__torch")


def _weight(problem: Problem = CONV) -> torch.Tensor:
    return torch.randn(problem.weight_shape, generator=torch.Generator().manual_seed(3)) + 2.0


def test_survivors_come_from_the_weight_not_from_the_sparsity() -> None:
    weight = _weight()
    weight[[1, 4]] = 0
    weight[:, 5] = 0
    packed = COMPACT.pack(CONV.with_sparsity("filter", 0.9), weight, None, False)
    assert (packed.survivors.k, packed.survivors.c) == (4, 7)
    assert packed.inner.weight.shape == (4, 7, 3, 3)
    assert packed.survivors.filters.tolist() == [0, 2, 3, 5]


def test_nothing_is_gathered_where_nothing_is_removed() -> None:
    packed = COMPACT.pack(CONV.with_sparsity("filter", 0.5), _weight(), None, False)
    assert packed.survivors.filters is None
    assert packed.survivors.channels is None


@pytest.mark.parametrize("relu", [False, True])
def test_removed_filters_give_their_bias(relu: bool) -> None:
    weight, bias = _weight(), torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0])
    weight[[0, 1]] = 0
    for kernel in (COMPACT, SHAPE):
        y = kernel.run(kernel.pack(CONV, weight, bias, relu), torch.randn(CONV.input_shape))
        assert bool((y[:, 0] == 1.0).all())
        assert bool((y[:, 1] == (0.0 if relu else -2.0)).all())


def test_shape_keeps_only_surviving_rows_and_columns() -> None:
    weight = _weight()
    weight[:, 0, 0, 0] = 0
    weight[:, 2, 1, 1] = 0
    weight[:, 3] = 0
    weight[5] = 0
    packed = SHAPE.pack(CONV.with_sparsity("filter+shape", 0.5), weight, None, False)
    assert isinstance(packed, shape.PackedShape)
    assert packed.matrix.shape == (5, 8 * 9 - 2 - 9)


def test_shape_of_whole_channels_becomes_a_smaller_convolution() -> None:
    weight = _weight()
    weight[:, [0, 3]] = 0
    packed = SHAPE.pack(CONV.with_sparsity("shape", 0.25), weight, None, False)
    assert isinstance(packed, compact.PackedCompact)
    assert packed.survivors.c == 6


def test_shape_in_portions_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = replace(CONV, n=5)
    weight, x = _weight(), torch.randn(problem.input_shape)
    weight[:, 0, 0, 0] = 0
    packed = SHAPE.pack(problem.with_sparsity("shape", 0.1), weight, None, False)
    whole = SHAPE.run(packed, x)
    monkeypatch.setattr(shape, "COLUMN_BUFFER_BYTES", 2 * packed.matrix.shape[1] * 25 * 4)
    torch.testing.assert_close(SHAPE.run(packed, x), whole)


@pytest.mark.parametrize("pattern", ["filter", "channel", "shape", "filter+channel", "filter+shape", "filter+2:4"])
def test_expected_sizes_are_those_of_the_mask(pattern: str) -> None:
    problem = replace(CONV, c_in=40, c_out=50).with_sparsity(pattern, 0.7)
    mask = magnitude_mask(_weight(problem), parse_pattern(pattern), problem.sparsity)
    survivors = compact.find_survivors(mask.float())
    k, c, columns = compact.reduced_sizes(problem)
    assert k == survivors.k
    if "2:4" not in pattern:
        assert columns == int(mask.any(dim=0).sum())
    if "shape" not in pattern:
        assert c == survivors.c


def test_cost_of_filters_and_channels() -> None:
    problem = replace(CONV, c_in=64, c_out=64)
    quarter = COMPACT.cost(problem.with_sparsity("filter+channel", 0.75))
    assert quarter.flop == problem.flop_dense_equiv / 4
    halved = SHAPE.cost(problem.with_sparsity("shape", 0.5))
    assert halved.flop == problem.flop_dense_equiv / 2
    whole = kernel_named("conv2d_dense_f32_nhwc__onednn").cost(problem)
    assert COMPACT.cost(problem.with_sparsity("filter", 0.0)) == whole


def test_cost_of_a_pointwise_shape_is_that_of_channels() -> None:
    problem = replace(CONV, c_in=64, c_out=64, kernel=(1, 1), padding=(0, 0))
    channels = compact.compact_cost(
        problem.with_sparsity("channel", 0.5), inner=kernel_named("conv2d_dense_f32_nchw__torch")
    )
    assert SHAPE.cost(problem.with_sparsity("shape", 0.5)) == channels


def test_eligibility() -> None:
    grouped = replace(CONV, c_in=12, groups=2).with_sparsity("filter", 0.5)
    assert "one group, the problem has 2" in str(COMPACT.why_unsupported(grouped, MACHINE))
    assert "one group, the problem has 2" in str(SHAPE.why_unsupported(grouped, MACHINE))
    assert "no whole filter or channel of a 3x3" in str(
        COMPACT.why_unsupported(CONV.with_sparsity("shape", 0.5), MACHINE)
    )
    pointwise = replace(CONV, kernel=(1, 1), padding=(0, 0))
    assert COMPACT.why_unsupported(pointwise.with_sparsity("shape", 0.5), MACHINE) is None
    assert "lacks the operator" in str(
        COMPACT.why_unsupported(CONV.with_sparsity("filter", 0.5), replace(MACHINE, torch_ops=()))
    )
