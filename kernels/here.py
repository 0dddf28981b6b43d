"""The machine at hand, as the kernels of a device see it."""

from __future__ import annotations

from .cpu import detect_machine
from .gpu.machine import detect_gpu
from .spec import Device, Machine


def machine_here(device: Device) -> Machine:
    """What this machine's CPU, or its first visible GPU, allows.

    Raises
    ------
    UnsupportedError
        If there is no such device.
    """
    return detect_gpu() if device == "cuda" else detect_machine()
