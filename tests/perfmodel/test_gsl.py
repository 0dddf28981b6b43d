"""The published figures of guided sparsity learning for AlexNet's fifth convolution."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.problem import Problem
from sparseplan.perfmodel.gsl import (
    GslMachine,
    dense_time_s,
    least_useful_density,
    least_useful_sparsity,
    sparse_time_s,
    speedup,
)

XEON = GslMachine(flop_per_s=2150e9, bandwidth_byte_per_s=122e9, sparse_overhead=3.0)
ATOM = GslMachine(flop_per_s=62e9, bandwidth_byte_per_s=15e9, sparse_overhead=1.2)
CONV5 = Problem(op="conv2d", n=1, c_in=384, c_out=256, h_in=13, w_in=13, kernel=(3, 3), padding=(1, 1), groups=2)


def test_conv5_has_the_counts_of_the_paper() -> None:
    assert pytest.approx(149.5e6, rel=1e-3) == CONV5.flop_dense_equiv
    assert CONV5.input_bytes + CONV5.output_bytes == pytest.approx(433e3, rel=2e-3)
    assert pytest.approx(1.77e6, rel=2e-3) == CONV5.weight_bytes


@pytest.mark.parametrize(("machine", "density"), [(XEON, 0.0197), (ATOM, 0.0109)])
def test_least_useful_density(machine: GslMachine, density: float) -> None:
    assert least_useful_density(CONV5, machine) == pytest.approx(density, abs=1e-4)


@pytest.mark.parametrize(("machine", "gain"), [(XEON, 3.7), (ATOM, 9.3)])
def test_speedup_at_nine_per_cent(machine: GslMachine, gain: float) -> None:
    assert speedup(CONV5, machine, 0.09) == pytest.approx(gain, abs=0.05)


def test_lower_bound_is_where_sparse_equals_dense() -> None:
    bound = least_useful_sparsity(XEON)
    assert bound == pytest.approx(2 / 3)
    assert sparse_time_s(CONV5, XEON, 1 - bound) == pytest.approx(dense_time_s(CONV5, XEON))


def test_below_the_least_useful_density_only_the_bytes_count() -> None:
    density = least_useful_density(CONV5, XEON)
    assert density is not None
    assert speedup(CONV5, XEON, density / 2) < 1.3 * speedup(CONV5, XEON, density)
    assert speedup(CONV5, XEON, density * 2) == pytest.approx(speedup(CONV5, XEON, density) / 2)


def test_memory_bound_layers_have_no_useful_density() -> None:
    linear = Problem(op="linear", n=1, c_in=4096, c_out=4096)
    assert least_useful_density(linear, replace(XEON, sparse_overhead=1.0)) is None


def test_density_is_checked() -> None:
    with pytest.raises(InputError, match=r"got 1\.5"):
        speedup(CONV5, XEON, 1.5)
