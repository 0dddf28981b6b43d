"""How sparseplan takes a time: medians with distribution-free intervals, rivals measured in alternation."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from ..kernels.keep_memory import keep_memory

MIN_BATCH_S = 200e-6
"""Shortest span worth reading a clock for: the clock costs about 50 ns, 0.03 % of it."""
CONFIDENCE = 0.95
FEWEST_SAMPLES, ENOUGH_SAMPLES, MOST_SAMPLES = 3, 7, 400
"""Taken even beyond a budget, as calls so long average the machine's noise by themselves; within it, however alike they
are; and at most."""
WARM_UP_CALLS, WARM_UP_S = 3, 0.1
"""Calls before the first sample: no more once those after the first, which may compile, took so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a rival does before the next one has its turn.

    Attributes
    ----------
    settle_s, settle_calls : float, int
        Calls that are not timed come first: as many as fit into this time, and no more than this number.
    samples : int
        Timed ones.
    """

    settle_s: float
    settle_calls: int
    samples: int


KERNEL_TURN = Turn(settle_s=2e-3, settle_calls=1, samples=1)
"""A call beyond 2 ms fills the caches by itself within a small part of its time: 2 ms move 40 MB and more."""
NETWORK_TURN = Turn(settle_s=30e-3, settle_calls=10, samples=3)
"""A network has far more code, weights and activations than a kernel: after a rival's turn the second call of a
compiled ResNet-18 (64x64) still took 1.2 times, and the tenth 1.03 times what it takes by itself."""


class TimeStats(BaseModel):
    """Median time of one call, with the order-statistic interval of the median (95 %)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: Annotated[float, Field(gt=0)]
    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]
    n: Annotated[int, Field(ge=1)]

    @property
    def spread_frac(self) -> float:
        """Width of the interval over the median."""
        return (self.high - self.low) / self.median


def summarise(samples_s: Sequence[float]) -> TimeStats:
    """Median and its 95 % interval from order statistics (no assumption on the distribution).

    References
    ----------
    Le Boudec, Performance Evaluation of Computer and Communication Systems, 2010, theorem 2.1.
    """
    ordered = np.sort(np.asarray(samples_s, dtype=np.float64))
    n = len(ordered)
    tail = (1.0 - CONFIDENCE) / 2.0
    # For n below 6 no 95 % interval of the median exists; the range of all samples is the widest honest answer.
    low_rank = max(int(stats.binom.ppf(tail, n, 0.5)) - 1, 0)
    high_rank = min(int(stats.binom.ppf(1.0 - tail, n, 0.5)), n - 1)
    return TimeStats(
        median=float(np.median(ordered)), low=float(ordered[low_rank]), high=float(ordered[high_rank]), n=n
    )


def pool(times: Sequence[TimeStats]) -> TimeStats:
    """One time from several of the same call, taken apart from each other.

    Memory placement and neighbours on the same host move the median between takes by more than the scatter within one:
    the interval spans the medians of all takes and, beyond them, the typical scatter (the median of the takes' own, so
    that one disturbed take does not decide).
    """
    medians = [time.median for time in times]
    below, above = (
        float(np.median([gap / time.median for gap, time in zip(gaps, times, strict=True)]))
        for gaps in ([time.median - time.low for time in times], [time.high - time.median for time in times])
    )
    return TimeStats(
        median=float(np.median(medians)),
        low=min(medians) * (1.0 - below),
        high=max(medians) * (1.0 + above),
        n=sum(time.n for time in times),
    )


class Timer(Protocol):
    """``measure_alternating`` of this module, or its like on another device."""

    def __call__(
        self, calls: Sequence[Callable[[], object]], /, *, budget_s: float, target_spread_frac: float = 0.02
    ) -> tuple[TimeStats, ...]: ...


def measure_alternating(
    calls: Sequence[Callable[[], object]],
    *,
    budget_s: float,
    target_spread_frac: float = 0.02,
    turn: Turn = KERNEL_TURN,
) -> tuple[TimeStats, ...]:
    """Time rivals in turn until every interval is narrow enough or the budget ends.

    Alternation makes drift of the machine hit all rivals alike, so ratios within one call hold. Each turn of a short
    call begins with some that are not timed: how much a rival left in the caches must not decide, so that times are
    those of warm caches whoever is measured beside. Memory is kept, as `sparseplan.load` keeps it.

    Parameters
    ----------
    calls : sequence of callable
        The rivals; each is warmed up first, and repeated inside one sample where it is shorter than the clock can
        resolve.
    budget_s : float
        Wall-clock limit for all rivals together, in seconds; `FEWEST_SAMPLES` of each are taken even beyond it.
    turn : Turn
        `KERNEL_TURN` or `NETWORK_TURN`.
    """
    keep_memory()
    samplers = [partial(_take_turn, call, turn, _warm_up(call, turn)) for call in calls]
    return alternate(samplers, budget_s=budget_s, target_spread_frac=target_spread_frac)


def alternate(
    samplers: Sequence[Callable[[], Iterable[float]]],
    *,
    budget_s: float,
    target_spread_frac: float,
) -> tuple[TimeStats, ...]:
    """Let samplers, each of which gives some seconds, take turns until every interval is narrow or the budget ends."""
    samples: list[list[float]] = [[] for _ in samplers]
    deadline = time.perf_counter() + budget_s
    collected = gc.isenabled()
    gc.disable()
    try:
        while True:
            for sampler, taken in zip(samplers, samples, strict=True):
                taken.extend(sampler())
            count = len(samples[0])
            if count >= MOST_SAMPLES or (count >= FEWEST_SAMPLES and time.perf_counter() >= deadline):
                break
            narrow = (summarise(taken).spread_frac <= target_spread_frac for taken in samples)
            if count >= ENOUGH_SAMPLES and all(narrow):
                break
    finally:
        if collected:
            gc.enable()
    return tuple(summarise(taken) for taken in samples)


def measure(call: Callable[[], object], *, budget_s: float, target_spread_frac: float = 0.02) -> TimeStats:
    """Time one call; see `measure_alternating`."""
    return measure_alternating([call], budget_s=budget_s, target_spread_frac=target_spread_frac)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """How many untimed calls begin a turn, and how often to repeat a call within one sample."""

    settle: int
    repeat: int


def _take_turn(call: Callable[[], object], turn: Turn, pace: _Pace) -> Iterator[float]:
    for _ in range(pace.settle):
        call()
    for _ in range(turn.samples):
        start = time.perf_counter()
        for _ in range(pace.repeat):
            call()
        yield (time.perf_counter() - start) / pace.repeat


def _warm_up(call: Callable[[], object], turn: Turn) -> _Pace:
    """Run a call until its time settles."""
    best_s, spent_s = math.inf, 0.0
    for number in range(WARM_UP_CALLS):
        start = time.perf_counter()
        call()
        taken_s = time.perf_counter() - start
        best_s, spent_s = min(best_s, taken_s), spent_s + taken_s * (number > 0)
        if spent_s >= WARM_UP_S:
            break
    best_s = max(best_s, 1e-9)
    return _Pace(
        settle=min(turn.settle_calls, int(turn.settle_s / best_s)), repeat=max(1, math.ceil(MIN_BATCH_S / best_s))
    )
