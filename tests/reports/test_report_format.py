"""Formatted numbers can be read back, carry a unit, and never more or fewer digits than they should."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseplan.perfmodel.schema import Interval
from sparseplan.profiles.timing import TimeStats
from sparseplan.reports.format import (
    duration,
    memory,
    percent,
    points,
    ratio,
    ratio_with_range,
    seconds,
    seconds_range,
    seconds_with_range,
    significant,
    with_prefix,
)

UNIT_S = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


@given(st.floats(1e-8, 900.0))
def test_a_time_reads_back_to_three_digits(time_s: float) -> None:
    number, unit = seconds(time_s).split(" ")
    assert float(number) * UNIT_S[unit] == pytest.approx(time_s, rel=5.1e-3)
    assert len(number.replace(".", "").lstrip("0")) == 3


@given(st.floats(1e-6, 900.0))
def test_a_time_from_one_microsecond_on_has_at_most_three_digits_before_the_point(time_s: float) -> None:
    number = float(seconds(time_s).split(" ")[0])
    assert 1.0 <= number < 1000.0


@given(st.floats(1e-7, 10.0), st.floats(0.0, 0.5))
def test_an_interval_is_in_the_unit_of_its_median(median: float, width: float) -> None:
    time_s = TimeStats(median=median, low=median * (1 - width), high=median * (1 + width), n=9)
    number, unit, low, high = re.fullmatch(r"(\S+) (\S+) \((.+)–(.+)\)", seconds_with_range(time_s)).groups()
    assert float(number) * UNIT_S[unit] == pytest.approx(median, rel=5.1e-3)
    assert float(low) * UNIT_S[unit] == pytest.approx(time_s.low, rel=5.1e-3)
    assert float(high) * UNIT_S[unit] == pytest.approx(time_s.high, rel=5.1e-3)
    assert seconds_with_range(time_s) == f"{seconds(median)} ({seconds_range(time_s)})"


@given(st.floats(1.0, 9e17))
def test_a_prefix_reads_back(value: float) -> None:
    number, unit = with_prefix(value, "flop/s").split(" ")
    scale = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}[unit.removesuffix("flop/s")]
    assert float(number) * scale == pytest.approx(value, rel=5.1e-3)
    assert 1.0 <= float(number) < 1000.0


@given(st.floats(0.0, 1.0))
def test_a_share_reads_back_to_a_tenth_of_a_percent(frac: float) -> None:
    text = percent(frac)
    assert re.fullmatch(r"\d+\.\d %", text)
    assert float(text.removesuffix(" %")) == pytest.approx(100.0 * frac, abs=0.0501)


@given(st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda value: abs(value) > 1e-9 or value == 0.0))
def test_significant_has_no_exponent_and_keeps_the_sign(value: float) -> None:
    text = significant(value)
    assert re.fullmatch(r"−?\d+(\.\d+)?", text)
    assert math.isclose(float(text.replace("−", "-")), value, rel_tol=5.1e-3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (seconds(0.00591), "5.91 ms"),
        (seconds(0.0009996), "1.00 ms"),
        (seconds(999.4e-6), "999 µs"),
        (seconds(12.34), "12.3 s"),
        (seconds(3.4e-7), "0.340 µs"),
        (ratio(1.8684), "1.87×"),
        (ratio(0.9342), "0.934×"),
        (ratio(12.0), "12.0×"),
        (ratio_with_range(Interval(median=1.868, low=1.832, high=1.905)), "1.87× (1.83–1.91)"),
        (percent(0.9784), "97.8 %"),
        (percent(-0.25), "−25.0 %"),
        (points(-0.0028), "−0.3 points"),
        (points(0.004), "+0.4 points"),
        (points(-0.0001), "±0.0 points"),
        (with_prefix(246e9, "flop/s"), "246 Gflop/s"),
        (with_prefix(999.9e9, "flop/s"), "1.00 Tflop/s"),
        (with_prefix(0.5, "B/s"), "0.500 B/s"),
        (memory(2 * 1024**2), "2 MiB"),
        (memory(500), "500 bytes"),
        (duration(85.2), "1 min 25 s"),
        (duration(3 * 3600 + 125), "3 h 2 min"),
        (duration(12.0), "12.0 s"),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert text == expected
