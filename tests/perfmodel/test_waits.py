"""What kernels wait for in networks alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_machine import SPARSE, profile_of, random_problems

from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.waits import CORE_TO_CORE_BYTE_PER_S, handover_s, refetch_s

MODEL = fit_performance_model(profile_of(()), (SPARSE,))
KERNEL = MODEL.kernels[SPARSE.name]
LAYER = Problem(op="conv2d", n=8, c_in=64, c_out=64, h_in=32, w_in=32, pattern="unstructured", sparsity=0.5, threads=2)


def test_weights_that_other_layers_push_out_are_fetched_again() -> None:
    problem = replace(random_problems(1, seed=1)[0], c_in=512, c_out=512, kernel=(3, 3), padding=(1, 1))
    assert refetch_s([problem, problem], KERNEL, MODEL.limits, 0.0).tolist() == [0.0, 0.0]
    waits = [float(refetch_s([problem], KERNEL, MODEL.limits, size)[0]) for size in (1e6, 3e7, 1e8, 1e9)]
    assert waits == sorted(waits)
    # From the main memory at the synthetic machine's 2e10 byte/s of two threads, less what the cache took.
    weights = SPARSE.cost(problem).bytes_moved - problem.input_bytes - problem.output_bytes
    share = 1.0 / min(KERNEL.roofline.memory, 1.0)
    assert 0.5 * weights / 2e10 < waits[-1] / share <= weights / 2e10 * 1.01


def test_one_core_has_its_activations_and_two_wait_for_half_of_them() -> None:
    thin = replace(LAYER, c_out=1, sparsity=0.98)
    alone, together = handover_s([replace(thin, threads=1), thin], KERNEL, MODEL.limits)
    assert alone == 0.0
    # Next to nothing hides the wait.
    moved = thin.input_bytes + thin.output_bytes
    assert together == pytest.approx(moved / 2.0 / (2.0 * CORE_TO_CORE_BYTE_PER_S), rel=0.25)


def test_arithmetic_hides_activations() -> None:
    heavy = replace(LAYER, kernel=(7, 7), padding=(3, 3))
    light, hidden = handover_s([LAYER, heavy], KERNEL, MODEL.limits)
    assert 0.0 <= hidden < 0.1 * light


def test_a_network_sees_shares_of_both_waits() -> None:
    problem = random_problems(1, seed=2)[0]
    parts = np.array(
        [refetch_s([problem], KERNEL, MODEL.limits, 1e9)[0], handover_s([problem], KERNEL, MODEL.limits)[0]]
    )
    shares = np.array([MODEL.network.refetch_frac, MODEL.network.handover_frac])
    assert MODEL.waits_s([problem], SPARSE.name, 1e9)[0] == pytest.approx(float(parts @ shares))
