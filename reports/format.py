"""Numbers as people read them: three significant digits and always a unit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..perfmodel.schema import Interval
    from ..profiles.schema import Ceiling
    from ..profiles.timing import TimeStats

_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))
_MINUTE_S = 60.0
_DIGITS = 3


def significant(value: float) -> str:
    """Three significant digits without an exponent; all digits of the integer part are kept."""
    rounded = _rounded(value)
    if rounded == 0.0:
        return "0"
    decimals = max(0, _DIGITS - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:.{decimals}f}".replace("-", "−")


def seconds(time_s: float) -> str:
    """A time in µs, ms or s."""
    unit_s, unit = _time_unit(time_s)
    return f"{significant(time_s / unit_s)} {unit}"


def seconds_range(time_s: TimeStats | Interval) -> str:
    """The interval of a time, without a unit, in that of its median: ``5.85–6.02``."""
    unit_s, _ = _time_unit(time_s.median)
    return f"{significant(time_s.low / unit_s)}–{significant(time_s.high / unit_s)}"


def seconds_with_range(time_s: TimeStats | Interval) -> str:
    """A time with its interval, all in the unit of the median: ``5.91 ms (5.85–6.02)``."""
    return f"{seconds(time_s.median)} ({seconds_range(time_s)})"


def duration(time_s: float) -> str:
    """How long something took, as a clock says it: ``2 min 5 s``."""
    if time_s < _MINUTE_S:
        return seconds(time_s)
    minutes, rest_s = divmod(round(time_s), int(_MINUTE_S))
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest_s} s"


def ratio(value: float) -> str:
    """A factor: ``1.87×``."""
    return f"{significant(value)}×"


def ratio_with_range(value: Interval) -> str:
    """A factor with its interval: ``1.87× (1.84–1.90)``."""
    return f"{ratio(value.median)} ({significant(value.low)}–{significant(value.high)})"


def percent(frac: float) -> str:
    """A share with one decimal: ``98.1 %``."""
    return f"{100.0 * frac + 0.0:.1f} %".replace("-", "−")


def points(frac: float) -> str:
    """A difference of two shares in percentage points, with its sign: ``−0.3 points``."""
    rounded = round(100.0 * frac, 1) + 0.0
    return f"{rounded:+.1f} points".replace("-", "−").replace("+0.0", "±0.0")


def with_prefix(value: float, unit: str) -> str:
    """A large quantity with a decimal prefix: ``246 Gflop/s``, ``61.2 GB/s``."""
    shown = _rounded(value)
    scale, prefix = next(((scale, prefix) for scale, prefix in _PREFIXES if shown >= scale), (1.0, ""))
    return f"{significant(value / scale)} {prefix}{unit}"


def ceiling_value(ceiling: Ceiling, value: float) -> str:
    """The value of a ceiling, or an end of its interval, in the ceiling's unit: ``61.2 GB/s``, ``20.3 ns``."""
    if ceiling.unit == "s":
        return seconds(value) if value >= 1e-6 else f"{significant(value / 1e-9)} ns"
    return with_prefix(value, "B/s" if ceiling.unit == "byte/s" else ceiling.unit)


def memory(size_bytes: int) -> str:
    """A capacity with a binary prefix: ``2 MiB``."""
    scale, unit = next(((scale, unit) for scale, unit in _BINARY if size_bytes >= scale), (1, "bytes"))
    return f"{size_bytes / scale:.3g} {unit}"


def _time_unit(time_s: float) -> tuple[float, str]:
    shown_s = _rounded(time_s)
    return next(((scale, unit) for scale, unit in _TIME_UNITS if shown_s >= scale), _TIME_UNITS[-1])


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
