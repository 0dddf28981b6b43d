"""The clock of the cores as the system tells it."""

from __future__ import annotations

import psutil


def clock_hz() -> float | None:
    """Mean over the cores, in hertz; None where the system does not tell (many virtual machines)."""
    clock = psutil.cpu_freq()
    return clock.current * 1e6 if clock is not None and clock.current > 0 else None
