"""The ceilings of a GPU, measured through torch: products of every unit, memory, and the launch of a kernel."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels.spec import GpuUnit
from .cuda_timing import Gpu
from .gpu_state import GpuState, read_gpu_state
from .schema import CLOCK, Ceiling, CeilingUnit

REPEATS = 5
LAUNCHES = 500
"""Small kernels launched without waiting in between: what each adds to a queue of them."""
CACHE_COPIES = 50
"""Of a buffer within the L2 cache, one after the other: a single one takes less than it takes to launch it."""
CACHE_SHARE = 0.25
"""Of the L2 cache that a buffer takes, so that it and its copy fill half of it."""
SPLIT = 3
"""Products of TF32 for one that keeps the accuracy of float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Sizes of what is timed: large enough that the device, not the host, is the limit.

    Attributes
    ----------
    copy_bytes : int
        Read, and as many written.
    cache_bytes : int
        Likewise, within the L2 cache.
    matrix : int
        Rows and columns of the square matrices.
    """

    copy_bytes: int = 1 << 30
    cache_bytes: int = 1 << 23
    matrix: int = 8192


def workload_of(cache_bytes: int) -> Workload:
    """What to time on a device with an L2 cache of that size."""
    return Workload(cache_bytes=int(CACHE_SHARE * cache_bytes))


def measure_cuda_ceilings(
    device: torch.device, gpu: Gpu, *, workload: Workload, state: Callable[[], GpuState] = read_gpu_state
) -> tuple[Ceiling, ...]:
    """Measure a device through torch, in a few seconds.

    Rates are the best of their repeats, latencies medians: disturbance only ever lengthens a run. Data are random, as
    products of zeros run faster. A unit that the device or this torch lacks has no ceiling. The clock is the driver's,
    read while products run; its interval reaches from the lowest to the highest reading.

    Parameters
    ----------
    device : torch.device
        Any device of torch's.
    gpu : Gpu
        Its events and graphs.

    Returns
    -------
    tuple of Ceiling
        Bandwidths count bytes read and written.
    """
    ceilings: list[Ceiling] = []
    clocks: list[float] = []
    for unit, product in _products(device, workload.matrix):
        times_s = _times_s(product, gpu)
        ceilings.append(_rate(f"flop_per_s:{unit}", 2.0 * workload.matrix**3, times_s, "flop/s"))
        if (clock_hz := state().clock_hz) is not None:
            clocks.append(clock_hz)
        if unit == "gpu_tf32":
            ceilings.append(_rate("flop_per_s:gpu_tf32x3", 2.0 * workload.matrix**3 / SPLIT, times_s, "flop/s"))
    for level, size, copies in (("dram", workload.copy_bytes, 1), ("l2", workload.cache_bytes, CACHE_COPIES)):
        source = torch.randn(size // 4, device=device)
        target = torch.empty_like(source)
        replay = gpu.graph(lambda target=target, source=source: target.copy_(source), copies)  # type: ignore[misc]
        ceilings.append(_rate(f"bandwidth_byte_per_s:{level}", 2.0 * size * copies, _times_s(replay, gpu), "byte/s"))
    one = torch.ones(1, device=device)

    def launch() -> None:
        for _ in range(LAUNCHES):
            one.add_(1.0)

    for name, work in (("launch_eager", launch), ("launch_graph", gpu.graph(lambda: one.add_(1.0), LAUNCHES))):
        ceilings.append(_latency(f"latency_s:{name}", [taken / LAUNCHES for taken in _times_s(work, gpu)]))
    if clocks:
        ceilings.append(_ceiling(CLOCK, statistics.median(clocks), clocks, "Hz"))
    return tuple(ceilings)


def _products(device: torch.device, size: int) -> Iterator[tuple[GpuUnit, Callable[[], object]]]:
    """The square products of this device, those that fail at the first call left out."""
    makers: dict[GpuUnit, Callable[[torch.device, int], Callable[[], object]]] = {
        "gpu_f32": lambda device, size: _plain(device, size, torch.float32, precision="highest"),
        "gpu_tf32": lambda device, size: _plain(device, size, torch.float32, precision="high"),
        "gpu_f16": lambda device, size: _plain(device, size, torch.float16),
        "gpu_bf16": lambda device, size: _plain(device, size, torch.bfloat16),
        "gpu_fp8": _fp8,
        "gpu_int8": _int8,
        "gpu_f16_2:4": lambda device, size: _two_of_four(device, size, torch.float16),
        "gpu_bf16_2:4": lambda device, size: _two_of_four(device, size, torch.bfloat16),
    }
    for unit, make in makers.items():
        try:
            product = make(device, size)
            product()
        except torch.OutOfMemoryError:
            # A device whose memory is full does not lack the product: its profile would be silently incomplete.
            raise
        except (RuntimeError, ValueError):
            # How torch says that a device has no such product.
            continue
        yield unit, product


def _plain(device: torch.device, size: int, dtype: torch.dtype, *, precision: str = "highest") -> Callable[[], object]:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def product() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            torch.matmul(a, b, out=out)
        finally:
            torch.set_float32_matmul_precision(before)

    return product


def _fp8(device: torch.device, size: int) -> Callable[[], object]:
    a, b = (torch.randn(size, size, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    scale = torch.ones((), device=device)
    return lambda: torch._scaled_mm(a, b.t(), scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)


def _int8(device: torch.device, size: int) -> Callable[[], object]:
    a, b = (torch.randint(-127, 128, (size, size), dtype=torch.int8, device=device) for _ in range(2))
    return lambda: torch._int_mm(a, b.t())


def _two_of_four(device: torch.device, size: int, dtype: torch.dtype) -> Callable[[], object]:
    weight = torch.randn(size, size, device=device).to(dtype)
    weight *= torch.tensor([1, 0, 1, 0], device=device, dtype=dtype).repeat(size // 4)
    sparse: Tensor = torch.sparse.to_sparse_semi_structured(weight)
    x = torch.randn(size, size, device=device).to(dtype)
    return lambda: torch.nn.functional.linear(x, sparse)


def _times_s(work: Callable[[], object], gpu: Gpu) -> list[float]:
    """[REPEATS] seconds, after one run that may load libraries or choose a kernel."""
    work()
    gpu.wait()
    times = []
    for _ in range(REPEATS):
        start = gpu.mark()
        work()
        end = gpu.mark()
        gpu.wait()
        times.append(gpu.between_s(start, end))
    return times


def _rate(name: str, amount: float, times_s: list[float], unit: CeilingUnit) -> Ceiling:
    rates = [amount / taken for taken in times_s]
    return _ceiling(name, max(rates), rates, unit)


def _latency(name: str, times_s: list[float]) -> Ceiling:
    return _ceiling(name, statistics.median(times_s), times_s, "s")


def _ceiling(name: str, value: float, samples: list[float], unit: CeilingUnit) -> Ceiling:
    return Ceiling(name=name, value=value, low=min(samples), high=max(samples), unit=unit, threads=1, source="measured")
