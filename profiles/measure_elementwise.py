"""What lies between the layers: element-wise operations of torch, timed over sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.layout import CPU
from .schema import ElementwiseSample
from .timing import Timer, measure_alternating

CHANNELS = 64
SPREAD_FRAC = 0.02
SIZES_BYTES = tuple(1 << power for power in range(14, 27))
"""Of the float32 input: 16 KiB to 64 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation between layers; `prepare` makes the call that is timed from an input [N, 64, H, W]."""

    name: str
    moved_per_input: float
    """Bytes read and written for each byte of the input."""
    prepare: Callable[[Tensor], Callable[[], object]]


def _batch_norm(x: Tensor) -> Callable[[], object]:
    mean, var, weight, bias = (torch.rand(CHANNELS) + 0.5 for _ in range(4))
    return lambda: F.batch_norm(x, mean, var, weight, bias)


def _to_nchw(x: Tensor) -> Callable[[], object]:
    strided = x.contiguous(memory_format=torch.channels_last)
    return lambda: strided.contiguous()


def _max_pool(x: Tensor) -> Callable[[], object]:
    # In channels_last, as the fast hosts run it: torch's own code for the other order is an order of magnitude slower.
    last = x.contiguous(memory_format=torch.channels_last)
    return lambda: F.max_pool2d(last, 2)


OPERATIONS = (
    Operation(name="relu", moved_per_input=2.0, prepare=lambda x: lambda: F.relu(x)),
    Operation(name="add", moved_per_input=3.0, prepare=lambda x: lambda: torch.add(x, x.detach())),
    Operation(name="batch_norm", moved_per_input=2.0, prepare=_batch_norm),
    Operation(name="max_pool", moved_per_input=1.25, prepare=_max_pool),
    Operation(
        name="nchw_to_nhwc",
        moved_per_input=2.0,
        prepare=lambda x: lambda: x.contiguous(memory_format=torch.channels_last),
    ),
    Operation(name="nhwc_to_nchw", moved_per_input=2.0, prepare=_to_nchw),
    Operation(name="cast", moved_per_input=1.5, prepare=lambda x: lambda: x.to(torch.bfloat16)),
)
"""Activation, residual sum, normalisation, pooling, change of memory order, change of dtype."""


def measure_elementwise(
    *,
    threads: int,
    budget_s: float,
    sizes_bytes: Sequence[int] = SIZES_BYTES,
    device: torch.device = CPU,
    timer: Timer = measure_alternating,
) -> Iterator[ElementwiseSample]:
    """Time each operation at each size, on torch's present thread count.

    Parameters
    ----------
    threads : int
        That thread count, for the record.
    budget_s : float
        For all of them together, in seconds.
    sizes_bytes : sequence of int
        Of the input; at least `SIZES_BYTES[0]`.
    device : torch.device
        Where they run.
    timer : Timer
        What takes the times there.
    """
    each_s = budget_s / (len(OPERATIONS) * len(sizes_bytes))
    for size in sizes_bytes:
        with device:
            x = _input(size)
        for operation in OPERATIONS:
            with torch.inference_mode(), device:
                (time_s,) = timer([operation.prepare(x)], budget_s=each_s, target_spread_frac=SPREAD_FRAC)
            yield ElementwiseSample(
                operation=operation.name,
                bytes_moved=operation.moved_per_input * x.nbytes,
                threads=threads,
                time_s=time_s,
            )


def _input(size_bytes: int) -> Tensor:
    """[N, 64, 8, 8] float32 up to a batch of 64, larger images beyond it, rounded down to whole rows."""
    batch = min(64, max(1, size_bytes // (4 * CHANNELS * 64)))
    pixels = size_bytes // (4 * CHANNELS * batch)
    return torch.randn(batch, CHANNELS, pixels // 8, 8)
