"""Low-rank layers: ranks, factors, what the layers in a row do, and what their time is taken to be."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from sparseplan.kernels.dense import PackedConv
from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.lowrank import low_rank, pack, ranks_of, stages_of
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import kernel_named
from sparseplan.kernels.weights import flop_useful_of, impose_pattern, make_weight, with_actual_sparsity

CONV = Problem(op="conv2d", n=2, c_in=48, c_out=64, h_in=8, w_in=9, kernel=(3, 3), stride=(2, 1), padding=(1, 1))
POINTWISE = replace(CONV, kernel=(1, 1), padding=(0, 0))
LINEAR = Problem(op="linear", n=3, c_in=96, c_out=80)
LAYERS = pytest.mark.parametrize("layer", [CONV, POINTWISE, LINEAR], ids=["conv", "pointwise", "linear"])


@LAYERS
@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9])
def test_ranks_save_what_is_asked_and_little_more(layer: Problem, sparsity: float) -> None:
    problem = layer.with_sparsity("lowrank", sparsity)
    stages = stages_of(problem, ranks_of(problem))
    saved = 1.0 - sum(stage.weight_count for stage in stages) / layer.weight_count
    assert sparsity <= saved < sparsity + 0.06
    assert stages[0].c_in == layer.c_in
    assert stages[-1].output_shape == layer.output_shape
    for before, after in itertools.pairwise(stages):
        assert before.output_shape == after.input_shape


@LAYERS
def test_low_rank_weights_have_those_ranks_and_keep_most(layer: Problem) -> None:
    problem = layer.with_sparsity("lowrank", 0.6)
    weight = torch.randn(layer.weight_shape, generator=torch.Generator().manual_seed(0))
    r_in, r_out = ranks_of(problem)
    thin = low_rank(weight, (r_in, r_out))
    assert torch.linalg.matrix_rank(thin.flatten(1).double(), rtol=1e-5) == r_out
    assert torch.linalg.matrix_rank(thin.transpose(0, 1).flatten(1).double(), rtol=1e-5) == r_in
    # A projection: what is left is orthogonal to what is gone, and doing it again changes nothing.
    assert float((weight - thin).double().flatten() @ thin.double().flatten()) == pytest.approx(0.0, abs=1e-3)
    assert torch.allclose(low_rank(thin, (r_in, r_out)), thin, atol=1e-5)


def test_a_matrix_gets_its_best_low_rank() -> None:
    """Eckart and Young: what is missing is what the singular values left out hold."""
    weight = torch.randn(20, 30, 1, 1, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(weight.flatten(1).double())
    missing = (weight - low_rank(weight, (7, 7))).norm()
    assert float(missing) == pytest.approx(float(singular[7:].norm()), rel=1e-5)


@LAYERS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packing_finds_the_rank_of_a_weight_and_leaves_full_rank_whole(layer: Problem, dtype: str) -> None:
    problem = replace(layer, dtype=dtype).with_sparsity("lowrank", 0.7)
    generator = torch.Generator().manual_seed(0)
    kept = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    thin = make_weight(problem, generator).to(kept).float()
    packed = pack(problem, thin, None, False)
    stages = stages_of(problem, ranks_of(problem))
    assert [layer.output_shape for layer in packed] == [stage.output_shape for stage in stages]
    full = torch.randn(layer.weight_shape, generator=generator).to(kept).float()
    assert len(pack(problem, full, None, False)) == 1


def test_bias_and_relu_belong_to_the_last_layer() -> None:
    problem = CONV.with_sparsity("lowrank", 0.7)
    weight = make_weight(problem, torch.Generator().manual_seed(0))
    packed = pack(problem, weight, torch.ones(64), True)
    assert [(layer.bias is not None, layer.relu) for layer in packed] == [(False, False)] * 2 + [(True, True)]
    assert isinstance(packed[1], PackedConv)
    assert packed[1].stride == (2, 1)


def test_groups_and_other_patterns_are_left_out() -> None:
    from sparseplan.kernels.cpu import detect_machine

    kernel, machine = kernel_named("conv2d_lowrank_f32_nhwc__onednn"), detect_machine()
    grouped = replace(CONV, groups=4).with_sparsity("lowrank", 0.5)
    assert kernel.why_unsupported(grouped, machine) == "needs one group, the problem has 4"
    assert "low rank" in str(kernel.why_unsupported(CONV.with_sparsity("filter", 0.5), machine))


def test_the_pattern_stands_alone_and_has_no_mask() -> None:
    pattern = parse_pattern("lowrank")
    assert (pattern.kinds, pattern.fixed_sparsity, pattern.has_mask) == (("lowrank",), None, False)
    with pytest.raises(InputError, match="combines 'lowrank' with others"):
        parse_pattern("filter+lowrank")
    with pytest.raises(UnsupportedError, match="'lowrank' leaves weights dense"):
        magnitude_mask(torch.ones(2, 2, 1, 1), pattern, 0.5)


def test_imposing_it_is_what_random_weights_get() -> None:
    problem = LINEAR.with_sparsity("lowrank", 0.8)
    weight = make_weight(problem, torch.Generator().manual_seed(3))
    assert torch.allclose(impose_pattern(weight, problem), weight, atol=1e-6)


def test_useful_work_is_that_of_the_factors_though_no_weight_is_zero() -> None:
    problem = LINEAR.with_sparsity("lowrank", 0.8)
    weight = make_weight(problem, torch.Generator().manual_seed(3))
    assert flop_useful_of(problem, weight) == pytest.approx(0.2 * problem.flop_dense_equiv)
    masked = LINEAR.with_sparsity("unstructured", 0.5)
    assert flop_useful_of(masked, torch.eye(80, 96)) == pytest.approx(LINEAR.flop_dense_equiv / 96)
    # A file's weights have a rank, and no share of zeros that would say it.
    assert with_actual_sparsity(replace(problem, weights="w.npy"), weight).sparsity == 0.8
