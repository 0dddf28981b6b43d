"""The ceilings of a GPU, measured through torch: copies, matrix products and the launch of a kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .schema import Ceiling, CeilingUnit

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
REPEATS = 5
LAUNCHES = 200
"""Launched without waiting in between: what a queue of small kernels costs each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Sizes of what is timed: large enough that the device, not the host, is the limit.

    Attributes
    ----------
    copy_bytes : int
        Read, and as many written.
    matrix : int
        Rows and columns of the square matrices.
    """

    copy_bytes: int = 1 << 28
    matrix: int = 4096


GPU_WORKLOAD = Workload()
"""A copy of 256 MiB is several times the last cache of any GPU in use and takes 0.1 ms on the fastest."""


def measure_cuda_ceilings(
    device: torch.device, synchronise: Callable[[], None], *, workload: Workload = GPU_WORKLOAD
) -> tuple[Ceiling, ...]:
    """Measure a device through torch, in well under a second.

    Rates are the best of their repeats, the latency is the least: disturbance only ever lengthens a run.

    Parameters
    ----------
    device : torch.device
        Any device of torch's; the names say ``cuda``.
    synchronise : callable
        Waits until the device has done all it was given.

    Returns
    -------
    tuple of Ceiling
        Copy bandwidth counts bytes read and written. float32 products follow torch's own setting for TF32.
    """
    half = torch.randn(workload.copy_bytes // 4, device=device)
    other = torch.empty_like(half)
    copy_s = _times_s(lambda: other.copy_(half), synchronise)
    ceilings = [_rate("bandwidth_byte_per_s:cuda:copy", 2.0 * workload.copy_bytes, copy_s, "byte/s")]
    for name, dtype in DTYPES.items():
        a, b = (torch.randn(workload.matrix, workload.matrix, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        ceilings.append(_rate(f"flop_per_s:cuda:{name}", 2.0 * workload.matrix**3, _product_s(a, b, out, synchronise)))
    one = torch.ones(1, device=device)

    def launch() -> None:
        for _ in range(LAUNCHES):
            one.add_(1.0)

    launches_s = sorted(taken / LAUNCHES for taken in _times_s(launch, synchronise))
    ceilings.append(_ceiling("latency_s:cuda:launch", launches_s[0], launches_s, "s"))
    return tuple(ceilings)


def _product_s(a: Tensor, b: Tensor, out: Tensor, synchronise: Callable[[], None]) -> list[float]:
    return _times_s(lambda: torch.matmul(a, b, out=out), synchronise)


def _times_s(work: Callable[[], object], synchronise: Callable[[], None]) -> list[float]:
    """[REPEATS] wall-clock seconds, after one run that may load libraries or choose a kernel."""
    work()
    synchronise()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - start)
    return times


def _rate(name: str, amount: float, times_s: list[float], unit: CeilingUnit = "flop/s") -> Ceiling:
    rates = [amount / taken for taken in times_s]
    return _ceiling(name, max(rates), rates, unit)


def _ceiling(name: str, value: float, samples: list[float], unit: CeilingUnit) -> Ceiling:
    return Ceiling(name=name, value=value, low=min(samples), high=max(samples), unit=unit, threads=1, source="measured")
