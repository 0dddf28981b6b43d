"""How sparseplan takes a time on a GPU: between two events of its stream, eagerly or as replays of a CUDA graph.

A graph launches its kernels without Python and without the driver's work for each, as a network does that runs in one:
its times are those of the GPU alone, whose launch is hidden behind other work. Eager times are what a caller waits for
who launches one operation after another.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch

from .timing import TimeStats, alternate

Launch = Literal["graph", "eager"]
Cache = Literal["warm", "flushed"]
MIN_SPAN_S = 200e-6
"""Events resolve about half a microsecond (CUDA runtime API, cudaEventElapsedTime)."""
MOST_REPEATS = 500
"""Calls of one graph."""
HIDING_CYCLES = 100_000
"""Some 50 us of a GPU's clock: a host launches a graph in less."""
WARM_UPS = 3
FLUSH_FACTOR = 2
"""The L2 cache is overwritten with so many times its size."""


class Gpu(Protocol):
    """What timing asks of a device."""

    def mark(self) -> object:
        """Put an event into the stream."""

    def between_s(self, start: object, end: object) -> float:
        """Seconds between two events that both have passed."""

    def wait(self) -> None:
        """Wait until the device has done all it was given."""

    def graph(self, call: Callable[[], object], repeat: int) -> Callable[[], object]:
        """Record a call, repeated; the result replays it."""

    def flush(self) -> None:
        """Overwrite the L2 cache."""

    def hide_launch(self) -> None:
        """Keep the device busy, and its caches as they are, until what is launched next has come to it."""


class CudaGpu:
    """The current CUDA device of torch."""

    def __init__(self) -> None:
        size = FLUSH_FACTOR * torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._cover = torch.empty(size, dtype=torch.uint8, device="cuda")

    def mark(self) -> object:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between_s(self, start: object, end: object) -> float:
        assert isinstance(start, torch.cuda.Event)
        assert isinstance(end, torch.cuda.Event)
        return float(start.elapsed_time(end)) * 1e-3

    def wait(self) -> None:
        torch.cuda.synchronize()

    def graph(self, call: Callable[[], object], repeat: int) -> Callable[[], object]:
        recorded = torch.cuda.CUDAGraph()
        # What Python happens to free meanwhile may call the driver, which a recording forbids.
        collected = gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.graph(recorded):
                for _ in range(repeat):
                    call()
        finally:
            if collected:
                gc.enable()
        return recorded.replay

    def flush(self) -> None:
        self._cover.zero_()

    def hide_launch(self) -> None:
        torch.cuda._sleep(HIDING_CYCLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaTiming:
    """How times are taken.

    Attributes
    ----------
    launch : {"graph", "eager"}
    cache : {"warm", "flushed"}
        Whether a call may find in the L2 cache what the call before it left there, or finds it overwritten.
    """

    gpu: Gpu
    launch: Launch = "graph"
    cache: Cache = "warm"

    def measure_alternating(
        self, calls: Sequence[Callable[[], object]], *, budget_s: float, target_spread_frac: float = 0.02
    ) -> tuple[TimeStats, ...]:
        """Time rivals in turn; as `timing.measure_alternating`, on the device."""
        samplers = [self._sampler(call) for call in calls]
        return alternate(samplers, budget_s=budget_s, target_spread_frac=target_spread_frac)

    def _sampler(self, call: Callable[[], object]) -> Callable[[], tuple[float]]:
        """What takes one sample of a call; compiles, chooses algorithms and records the graph first."""
        best_s = math.inf
        for _ in range(WARM_UPS):
            start = time.perf_counter()
            call()
            self.gpu.wait()
            best_s = min(best_s, time.perf_counter() - start)
        # A flushed cache holds for one call only.
        repeat = 1 if self.cache == "flushed" else max(1, math.ceil(MIN_SPAN_S / best_s))
        if self.launch == "eager":
            return partial(self._sample, call, repeat, repeat)
        replay = self._recorded(call, repeat)
        if self.cache == "warm" and repeat < MOST_REPEATS:
            # The host's clock counts launches, which a graph does not have: its own span must be long enough.
            (each_s,) = self._sample(replay, 1, repeat)
            if repeat * each_s < MIN_SPAN_S:
                repeat = min(MOST_REPEATS, math.ceil(MIN_SPAN_S / each_s))
                replay = self._recorded(call, repeat)
        return partial(self._sample, replay, 1, repeat)

    def _recorded(self, call: Callable[[], object], repeat: int) -> Callable[[], object]:
        replay = self.gpu.graph(call, repeat)
        replay()
        self.gpu.wait()
        return replay

    def _sample(self, launch: Callable[[], object], launches: int, calls: int) -> tuple[float]:
        if self.cache == "flushed":
            self.gpu.flush()
        elif self.launch == "graph":
            self.gpu.hide_launch()
        start = self.gpu.mark()
        for _ in range(launches):
            launch()
        end = self.gpu.mark()
        self.gpu.wait()
        # An event that resolves half a microsecond can answer 0.
        return (max(self.gpu.between_s(start, end), 1e-9) / calls,)
