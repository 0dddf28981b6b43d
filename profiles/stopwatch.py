"""Where work is timed and how: on the CPU with the host's clock, or on a GPU with its events and graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from ..kernels.gpu.dense import float32_as_asked
from ..kernels.layout import CPU
from ..kernels.spec import Device
from .clock import clock_hz
from .cuda_timing import CudaGpu, CudaTiming, Gpu
from .gpu_state import read_gpu_state
from .timing import NETWORK_TURN, Timer, measure_alternating


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopwatch:
    """What takes times on a device.

    Attributes
    ----------
    device : torch.device
        Where inputs and weights must lie.
    kernels, networks : Timer
        For single layers (on a GPU replays of a graph), and for calls of whole networks as they are.
    clock_hz : callable
        The present clock of the device, None where the system does not tell.
    gpu : Gpu or None
        Events and graphs of a GPU.
    settings : callable
        A context in which networks must run: on a GPU float32 is float32, where torch's own default would round the
        convolutions to TF32, and cuDNN chooses its algorithms by trial.
    """

    device: torch.device
    kernels: Timer
    networks: Timer
    clock_hz: Callable[[], float | None]
    gpu: Gpu | None = None
    settings: Callable[[], AbstractContextManager[None]] = nullcontext


HOST = Stopwatch(
    device=CPU,
    kernels=measure_alternating,
    networks=partial(measure_alternating, turn=NETWORK_TURN),
    clock_hz=clock_hz,
)


def stopwatch_of(device: Device) -> Stopwatch:
    """That of the CPU, or of the first visible GPU."""
    return HOST if device == "cpu" else gpu_stopwatch(torch.device("cuda", torch.cuda.current_device()), CudaGpu())


def gpu_stopwatch(device: torch.device, gpu: Gpu) -> Stopwatch:
    """The stopwatch of a device with events and graphs."""
    return Stopwatch(
        device=device,
        kernels=CudaTiming(gpu=gpu).measure_alternating,
        networks=CudaTiming(gpu=gpu, launch="eager").measure_alternating,
        clock_hz=lambda: read_gpu_state().clock_hz,
        gpu=gpu,
        settings=float32_as_asked,
    )
