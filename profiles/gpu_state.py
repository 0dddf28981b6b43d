"""Clocks, power and temperature of the GPU as its driver tells them: read, never set."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

TOOL = "nvidia-smi"
FIELDS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw", "temperature.gpu", "driver_version")
WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """What the driver says at one moment; None where it does not."""

    clock_hz: float | None
    memory_clock_hz: float | None
    highest_clock_hz: float | None
    power_w: float | None
    temperature_c: float | None
    driver_version: str | None


UNKNOWN = GpuState(
    clock_hz=None,
    memory_clock_hz=None,
    highest_clock_hz=None,
    power_w=None,
    temperature_c=None,
    driver_version=None,
)


def read_gpu_state() -> GpuState:
    """State of the first GPU; all None where there is no driver, or it does not answer."""
    if shutil.which(TOOL) is None:
        return UNKNOWN
    query = [TOOL, "-i", "0", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=WAIT_S, check=False)
    except subprocess.TimeoutExpired:
        return UNKNOWN
    return parse_gpu_state(told.stdout) if told.returncode == 0 else UNKNOWN


def parse_gpu_state(line: str) -> GpuState:
    """State from a line of comma-separated values in the order of `FIELDS`: MHz, W and degrees Celsius."""
    values = [value.strip() for value in line.strip().split(",")]
    if len(values) != len(FIELDS):
        return UNKNOWN
    clock, memory_clock, highest, power, temperature = (_number(value) for value in values[:5])
    return GpuState(
        clock_hz=None if clock is None else clock * 1e6,
        memory_clock_hz=None if memory_clock is None else memory_clock * 1e6,
        highest_clock_hz=None if highest is None else highest * 1e6,
        power_w=power,
        temperature_c=temperature,
        driver_version=values[5] or None,
    )


def _number(text: str) -> float | None:
    """None for what the driver writes where a card lacks a sensor, ``[N/A]`` and the like."""
    try:
        return float(text)
    except ValueError:
        return None
