from __future__ import annotations

import subprocess
import sys

import pytest
from made_up_plan import layer_plan, plan_with
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.weight_view import weight_view
from sparseplan.planner.schema import LayerPlan, Plan
from sparseplan.trainer.assignment import LayerSparsity, assignment_of, assignment_sha256


def layer(name: str, pattern: str, sparsity: float) -> LayerPlan:
    problem = Problem(op="linear", n=1, c_in=16, c_out=16, pattern=pattern, sparsity=sparsity)
    return layer_plan(name, problem, kernel="some_kernel", dense_kernel="some_kernel")


def plan(*layers: LayerPlan) -> Plan:
    return plan_with(*layers, input_shape=(1, 1, 8, 8), pattern="filter")


def assign(name: str, pattern: str, sparsity: float) -> LayerSparsity:
    return LayerSparsity(name=name, pattern=parse_pattern(pattern), sparsity=sparsity)


def test_only_the_sparse_layers_of_a_plan_are_assigned() -> None:
    layers = (layer("a", "filter+shape", 0.75), layer("b", "dense", 0.0), layer("c.d", "2:4", 0.5))
    assert assignment_of(plan(*layers)) == (assign("a", "filter+shape", 0.75), assign("c.d", "2:4", 0.5))
    assert assignment_of(plan(layers[1])) == ()


def test_the_weight_view_shares_memory() -> None:
    linear, conv = nn.Linear(6, 4), nn.Conv2d(6, 4, 3, groups=2)
    view = weight_view(linear)
    assert view.shape == (4, 6, 1, 1)
    view.data[0, 0] = 7.0
    assert linear.weight[0, 0] == 7.0
    assert weight_view(conv).shape == (4, 3, 3, 3)
    assert weight_view(conv).data_ptr() == conv.weight.data_ptr()


def test_a_layer_without_a_matrix_has_no_view() -> None:
    with pytest.raises(InputError, match="ReLU"):
        weight_view(nn.ReLU())
    with pytest.raises(InputError, match="ConvTranspose2d"):
        weight_view(nn.ConvTranspose2d(2, 2, 1))


def test_the_fingerprint_tells_assignments_apart() -> None:
    one = (assign("0", "filter", 0.5), assign("4", "2:4", 0.5))
    assert assignment_sha256(one) == assignment_sha256((assign("0", "filter", 0.5), assign("4", "2:4", 0.5)))
    others = [
        one[:1],
        one[::-1],
        (one[0], assign("4", "1:4", 0.75)),
        (assign("0", "filter", 0.5000001), one[1]),
        (assign("1", "filter", 0.5), one[1]),
    ]
    assert len({assignment_sha256(other) for other in (one, *others)}) == 6


def test_the_package_itself_loads_no_torch() -> None:
    code = "import sys, sparseplan.trainer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
