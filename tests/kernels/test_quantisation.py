"""The integers of int8 layers: their definition against exact fractions, and the shared native text against both."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseplan.kernels import _native
from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.inputs import plausible_quantisation, random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.quantisation import (
    BIAS_MAX,
    PRODUCTS_MAX,
    Quantisation,
    choose_quantisation,
    choose_scale,
    dequantise,
    quantise,
    quantise_layer,
    why_sums_overflow,
)
from sparseplan.kernels.reference import reference
from sparseplan.kernels.reference_int8 import reference_int8

NATIVE = [isa for isa in ("avx512",) if isa in detect_machine({}).isa]
QUANTISATION = Quantisation(x_scale=0.02, x_zero_point=100, y_scale=0.05, y_zero_point=30)
EXTREMES = np.array([0, 1, -1, 2, 2**15, -(2**15), 2**30, 2**31 - 1, -(2**31), -(2**31) + 1], dtype=np.int32)


def exact(total: int, multiplier: int, shift: int, other: int, low: int) -> int:
    return min(max(floor(Fraction(total * multiplier, 2**shift) + Fraction(1, 2)) + other, low), 255)


def fixed_point_numbers(channels: int, least: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    shift = rng.integers(least, 63, channels, dtype=np.int32)
    multiplier = rng.integers(2**30, 2**31, channels, dtype=np.int32)
    multiplier[::5], shift[::5] = 2**31 - 1, 62
    multiplier[1::5], shift[1::5] = 2**30, least
    multiplier[2::5], shift[2::5] = 2**31 - 1, least
    return multiplier, shift


@pytest.mark.parametrize("isa", NATIVE)
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize(("low", "least_shift"), [(0, 1), (77, 1), (0, 32), (77, 32), (0, 31)])
def test_native_requantisation_is_exact(
    isa: str, channels: int, has_residual: bool, low: int, least_shift: int
) -> None:
    rng = np.random.default_rng(channels)
    multiplier, shift = fixed_point_numbers(channels, least_shift, rng)
    sums = rng.integers(-(2**31), 2**31, (43, channels), dtype=np.int32)
    # Sums whose outputs lie among the bytes, and just between two of them.
    for pixel in range(20):
        near = (rng.integers(-300, 300, channels) * 2.0 + pixel % 2) / 2.0 * 2.0**shift / multiplier
        sums[pixel] = np.clip(np.rint(near), -(2**31), 2**31 - 1).astype(np.int32)
    sums[20 : 20 + len(EXTREMES)] = EXTREMES[:, None]
    bias = np.zeros(channels, np.int32)
    bias[::3] = 12345
    sums[:, ::3] = np.minimum(sums[:, ::3], 2**31 - 1 - 12345)
    residual = rng.integers(0, 256, sums.shape, dtype=np.uint8) if has_residual else None
    y = np.full(sums.shape, 99, np.uint8)
    _native.requantise(
        isa=isa,
        sums=sums,
        bias=bias,
        multiplier=multiplier,
        shift=shift,
        zero_point=77,
        low=low,
        residual=residual,
        y=y,
    )
    for (pixel, k), byte in np.ndenumerate(y):
        other = 77 if residual is None else int(residual[pixel, k])
        total = int(sums[pixel, k]) + int(bias[k])
        assert byte == exact(total, int(multiplier[k]), int(shift[k]), other, low), (pixel, k)


def test_requantisation_refuses_what_it_cannot_store() -> None:
    sums, one = np.zeros((1, 1), np.int32), np.ones(1, np.int32)
    arguments = {"isa": "avx512", "sums": sums, "bias": one, "zero_point": 0, "low": 0, "residual": None}
    with pytest.raises(ValueError, match="ranges"):
        _native.requantise(**arguments, multiplier=one, shift=0 * one, y=np.zeros((1, 1), np.uint8))
    with pytest.raises(ValueError, match="y differs"):
        _native.requantise(**arguments, multiplier=one, shift=one, y=np.zeros((1, 2), np.uint8))


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_layer_in_integers(data: st.DataObject) -> None:
    """Multiplier and shift are near the real ratio, zeros stay zero, nothing leaves its range."""
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    magnitude = 10.0 ** rng.uniform(-9, 3, (6, 1, 1, 1))
    weight = rng.standard_normal((6, 5, 3, 3)) * magnitude * (rng.random((6, 5, 3, 3)) < 0.5)
    weight[data.draw(st.integers(0, 5))] = 0.0
    bias = rng.standard_normal(6) * 10.0 ** rng.uniform(-6, 3)
    layer = quantise_layer(torch.tensor(weight), torch.tensor(bias), True, QUANTISATION)
    assert np.all(layer.weight[weight == 0.0] == 0)
    assert layer.weight.min() >= -127
    assert np.abs(layer.bias.astype(np.int64)).max() <= BIAS_MAX
    assert layer.low == QUANTISATION.y_zero_point
    assert layer.multiplier.min() >= 0
    assert layer.shift.min() >= 1
    assert layer.shift.max() <= 62
    step = layer.multiplier.astype(float) / 2.0**layer.shift * QUANTISATION.y_scale
    assert np.abs(layer.bias * step - bias).max() <= step.max() * 0.51 + 1e-6 * np.abs(bias).max()
    error = np.abs(layer.weight * (step / QUANTISATION.x_scale)[:, None, None, None] - weight)
    assert np.all(error.max(axis=(1, 2, 3)) <= step / QUANTISATION.x_scale * 0.501)
    wide = 6 * [0]
    for k, row in enumerate(layer.weight.reshape(6, -1)):
        wide[k] = int(layer.bias[k]) - QUANTISATION.x_zero_point * int(row.astype(int).sum())
    assert wide == layer.folded_bias().tolist()


@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_reference_is_the_definition(relu: bool, has_residual: bool) -> None:
    problem = Problem(
        op="conv2d", n=2, c_in=4, c_out=6, h_in=5, w_in=4, kernel=(3, 2), padding=(1, 1), dtype="int8", groups=2
    )
    generator = torch.Generator().manual_seed(3)
    inputs = random_inputs(problem, torch.randn(problem.weight_shape, generator=generator), generator)
    residual = torch.randint(0, 256, problem.output_shape, generator=generator).byte() if has_residual else None
    assert inputs.quantisation is not None
    y = reference_int8(
        problem, inputs.weight, inputs.bias, relu, inputs.x, quantisation=inputs.quantisation, residual=residual
    )
    layer = quantise_layer(inputs.weight, inputs.bias, relu, inputs.quantisation)
    padded = np.pad(inputs.x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=layer.x_zero_point).astype(int)
    for (n, k, i, j), byte in np.ndenumerate(y.numpy()):
        patch = padded[n, k // 3 * 2 : k // 3 * 2 + 2, i : i + 3, j : j + 2]
        total = int((layer.weight[k].astype(int) * patch).sum()) + int(layer.folded_bias()[k])
        other = layer.y_zero_point if residual is None else int(residual[n, k, i, j])
        assert byte == exact(total, int(layer.multiplier[k]), int(layer.shift[k]), other, layer.low)


def test_stored_outputs_are_near_the_real_ones() -> None:
    problem = Problem(op="linear", n=64, c_in=256, c_out=32, dtype="int8")
    generator = torch.Generator().manual_seed(5)
    inputs = random_inputs(problem, torch.randn(problem.weight_shape, generator=generator), generator)
    quantisation = inputs.quantisation
    assert quantisation is not None
    x = dequantise(inputs.x, quantisation.x_scale, quantisation.x_zero_point)
    y = dequantise(inputs.expected(), quantisation.y_scale, quantisation.y_zero_point)
    real = reference(problem, inputs.weight, inputs.bias, True, x).clamp(max=float(y.max()))
    # Rounded weights err by a twelfth of a squared step each, the output by half a step.
    spread = float(inputs.weight.abs().max()) / 127 * (256 / 12) ** 0.5
    assert float((y - real).abs().max()) < 5.0 * spread + 0.51 * quantisation.y_scale
    assert 20 < len(inputs.x.unique()) <= 256
    assert len(inputs.expected().unique()) > 100


def test_scales_hold_their_range_and_zero() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)):
        scale, zero_point = choose_scale(low, high)
        ends = torch.tensor([low, high, 0.0])
        stored = quantise(ends, scale, zero_point)
        assert torch.allclose(dequantise(stored, scale, zero_point), ends, atol=scale * 0.501)
        assert dequantise(stored, scale, zero_point)[2] == 0.0
    x = torch.randn(100)
    assert choose_quantisation(x, x.relu()).y_zero_point == 0
    assert plausible_quantisation(torch.zeros(2, 3, 1, 1), torch.zeros(2)).y_scale > 0


def test_refusals() -> None:
    weight = torch.ones(1, 1, 1, 1)
    for field, wrong in (("x_scale", 0.0), ("y_scale", float("nan")), ("x_zero_point", -1), ("y_zero_point", 256)):
        values = {"x_scale": 1.0, "x_zero_point": 0, "y_scale": 1.0, "y_zero_point": 0} | {field: wrong}
        with pytest.raises(InputError, match=field):
            Quantisation(**values)
    with pytest.raises(InputError, match="range of activations"):
        choose_scale(1.0, float("inf"))
    fine = Quantisation(x_scale=1.0, x_zero_point=0, y_scale=1e-12, y_zero_point=0)
    with pytest.raises(InputError, match="too fine"):
        quantise_layer(weight, None, False, fine)
    with pytest.raises(InputError, match="finite"):
        quantise_layer(weight * float("nan"), None, False, QUANTISATION)
    longest = Problem(op="linear", n=1, c_in=PRODUCTS_MAX, c_out=1, dtype="int8")
    assert why_sums_overflow(longest) is None
    assert "33156 products" in (why_sums_overflow(Problem(op="linear", n=1, c_in=33156, c_out=1)) or "")
    assert PRODUCTS_MAX * 255 * 127 + BIAS_MAX < 2**31
