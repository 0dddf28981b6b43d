"""Structured activation sparsification: the slots, the wide tensor, and the ReLU network that it starts from."""

import itertools
import math

import pytest
import torch

from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.pattern import SasPart
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import reference
from sparseplan.kernels.sas import expand_slots, slot_numbers, why_slots_undefined, wide_problem, widen_weight

CONV = Problem(op="conv2d", n=2, c_in=6, c_out=4, h_in=5, w_in=4, kernel=(3, 3), padding=(1, 1), groups=2)


@pytest.mark.parametrize(("m", "groups", "channels"), [(2, 1, 3), (4, 1, 5), (4, 2, 6), (8, 2, 4), (4, 3, 3)])
def test_slots_are_their_definition(m: int, groups: int, channels: int) -> None:
    x = torch.randn(2, channels, 3, generator=torch.Generator().manual_seed(0))
    x[0, 0, 0], x[0, 1, 0] = 0.0, -0.0
    slots, wide = slot_numbers(x, m, groups=groups), expand_slots(x, m, groups=groups)
    expected = torch.zeros(2, m * channels, 3)
    width = channels // groups
    for n, c, i in itertools.product(range(2), range(channels), range(3)):
        first = c // width * width
        bits = [x[n, first + (c - first + j) % width, i] <= 0 for j in range(int(math.log2(m)))]
        slot = sum(int(bit) << j for j, bit in enumerate(bits))
        assert slots[n, c, i] == slot
        expected[n, m * c + slot, i] = x[n, c, i].abs()
    assert torch.equal(wide, expected)


@pytest.mark.parametrize("m", [2, 4, 8])
def test_a_widened_relu_layer_is_that_layer(m: int) -> None:
    problem = CONV.with_sparsity(f"sas:1:{m}", 0.0)
    generator = torch.Generator().manual_seed(1)
    x, bias = torch.randn(problem.input_shape, generator=generator), torch.randn(4, generator=generator)
    weight = torch.randn(CONV.weight_shape, generator=generator)
    wide = widen_weight(weight, m)
    assert wide.shape == problem.weight_shape
    assert torch.equal(reference(problem, wide, bias, False, x), reference(CONV, weight, bias, False, x.relu()))


def test_expansion_has_the_gradient_of_the_magnitude() -> None:
    x = torch.tensor([[1.0, -2.0, 0.5]], requires_grad=True)
    scale = torch.arange(1.0, 7.0)
    (expand_slots(x, 2) * scale).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, -4.0, 5.0]]


def test_problem_counts_the_wide_and_the_narrow_layer() -> None:
    problem = CONV.with_sparsity("sas:1:4", 0.0)
    assert problem.sparsity == 0.75
    assert problem.weight_shape == (4, 12, 3, 3)
    assert problem.input_shape == CONV.input_shape
    assert problem.flop_dense_equiv == 4 * CONV.flop_dense_equiv == wide_problem(problem).flop_dense_equiv
    assert problem.flop_useful == CONV.flop_dense_equiv
    assert wide_problem(problem).weight_shape == problem.weight_shape
    assert problem.as_dense() == CONV
    with pytest.raises(InputError, match=r"0\.75"):
        Problem(op="linear", n=1, c_in=4, c_out=4, pattern="sas:1:4", sparsity=0.5)


def test_what_sign_bits_cannot_place_is_refused() -> None:
    assert why_slots_undefined(SasPart(name="sas:1:8", n=1, m=8)) is None
    for n, m in ((2, 4), (1, 3)):
        problem = CONV.with_sparsity(f"sas:{n}:{m}", 0.0)
        with pytest.raises(UnsupportedError, match=f"sas:{n}:{m}"):
            reference(problem, torch.zeros(problem.weight_shape), None, False, torch.zeros(problem.input_shape))
    for m in (0, 1, 3):
        with pytest.raises(InputError, match="power of two"):
            expand_slots(torch.zeros(1, 4), m)
    with pytest.raises(InputError, match="groups must divide"):
        expand_slots(torch.zeros(1, 4), 2, groups=3)
