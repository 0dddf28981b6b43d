"""Kernels that run others one after the other are predicted as their sum."""

from __future__ import annotations

import pytest
from synthetic_machine import profile_of

from sparseplan.kernels.lowrank import ranks_of, stages_of
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.perfmodel.fit import fit_performance_model

KERNEL = "conv2d_lowrank_f32_nhwc__onednn"
DENSE = "conv2d_dense_f32_nhwc__onednn"
LAYER = Problem(op="conv2d", n=16, c_in=256, c_out=256, h_in=14, w_in=14, kernel=(3, 3), padding=(1, 1), threads=2)


def test_a_low_rank_layer_takes_what_its_dense_layers_take() -> None:
    model = fit_performance_model(profile_of(()), REGISTRY)
    problem = LAYER.with_sparsity("lowrank", 0.8)
    parts = [model.predict(stage, DENSE) for stage in stages_of(problem, ranks_of(problem))]
    assert len(parts) == 3
    whole = model.predict(problem, KERNEL)
    assert whole.median_s == pytest.approx(sum(part.median_s for part in parts))
    assert whole.low_s == pytest.approx(sum(part.low_s for part in parts))
    assert whole.high_s == pytest.approx(sum(part.high_s for part in parts))
    assert whole.bound == max(parts, key=lambda part: part.median_s).bound
    assert whole.extrapolated


def test_less_rank_takes_less_time() -> None:
    model = fit_performance_model(profile_of(()), REGISTRY)
    times = [model.predict(LAYER.with_sparsity("lowrank", s), KERNEL).median_s for s in (0.2, 0.5, 0.8, 0.95)]
    assert times == sorted(times, reverse=True)
    assert times[-1] < model.predict(LAYER, DENSE).median_s
