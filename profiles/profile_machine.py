"""Measure this machine: identity, ceilings, every kernel on a spread of problems, and what lies between the layers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import torch

from ..kernels import _native
from ..kernels.problem import Problem
from ..kernels.progress import Progress, silent
from ..kernels.spec import CpuUnit, Device, KernelSpec, Machine
from .ceilings import Probes, measure_ceilings
from .fingerprint import read_fingerprint
from .fresh_problems import fresh_problems
from .measure_elementwise import OPERATIONS, SIZES_BYTES, measure_elementwise
from .sample_kernels import kernels_to_time, sample_kernels
from .schema import Budget, ElementwiseSample, MachineProfile, StabilitySample
from .spread import spread_problems

SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeTable:
    """How a budget of wall-clock time is spent, in seconds, and how large element-wise operations are (bytes)."""

    total_s: float
    elementwise_s: float
    elementwise_sizes: tuple[int, ...]
    problem_s: float


TIME_TABLES: dict[Budget, TimeTable] = {
    "quick": TimeTable(total_s=46.0, elementwise_s=6.0, elementwise_sizes=SIZES_BYTES[:-1], problem_s=0.05),
    "standard": TimeTable(total_s=255.0, elementwise_s=12.0, elementwise_sizes=SIZES_BYTES, problem_s=0.05),
    "full": TimeTable(total_s=1690.0, elementwise_s=40.0, elementwise_sizes=SIZES_BYTES, problem_s=0.15),
}
"""Totals of 60 s, 5 min and 30 min, less what whole networks, starting up and the last problem may take. More problems,
each less exactly, teach more than fewer that are exact: what a fit misses of a layer it never saw is several times the
scatter of a short measurement."""

SPREAD_SHARE = 0.45
"""Of the budget for layers of real networks; the rest is for random layers that the performance model asks for."""
CHOICE_SHARES = (0.65, 0.85, 1.0)
"""Shares of the budget at which the model is asked again."""
CANDIDATES, CANDIDATES_EACH = 400, 2
"""Random layers that it may choose from each time: at least so many, and so many for each that time allows."""
CANDIDATE_SEED = 1_000_003
KEEP_EVERY_S = 10.0
WATCHED_UNIT: CpuUnit = "fma_f32"
WATCH_EVERY_S, WATCH_S = 3.0, 0.005
"""How often, and for how long, the arithmetic peak is measured again to see whether the machine drifts."""
LESSER_ISA_EVERY = 7
"""Kernels of lesser instruction sets than the best one come on a few problems only: they matter to who forces them,
and they are slow."""
CALLS_AT_LEAST = 10
"""Runs of each kernel that a measurement takes whatever its budget."""
SLOW_FLOP_PER_S: dict[Device, float] = {"cpu": 5e9, "cuda": 5e12}
"""Of one thread, or a GPU, under a slow kernel, to foresee whether a problem still fits (assumed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """What to measure with.

    Attributes
    ----------
    budget : {"quick", "standard", "full"}
        At most 60 s, 5 min, 30 min of wall-clock time.
    threads : int
        Threads that kernels use; some problems are measured on one thread too.
    """

    budget: Budget
    threads: int
    machine: Machine
    registry: tuple[KernelSpec, ...]


Choose = Callable[[MachineProfile, Sequence[Problem], int], Sequence[Problem]]
"""``choose(profile so far, candidates, count)``: the candidates from which a performance model would learn most."""


def profile_machine(
    request: ProfileRequest,
    *,
    begun: MachineProfile | None = None,
    keep: Callable[[MachineProfile], None] | None = None,
    choose: Choose | None = None,
    progress: Progress = silent,
    clock: Callable[[], float] = time.perf_counter,
    probes: Probes = _native,
) -> MachineProfile:
    """Measure this machine: first layers of real networks, then random ones that `choose` picks.

    Parameters
    ----------
    begun : MachineProfile or None
        What an interrupted run of the same request left; its time counts.
    keep : callable or None
        Given the profile so far from time to time, so that an interrupt loses little.
    choose : callable or None
        None measures layers of real networks alone.
    clock : callable
        Seconds since some moment.
    probes : Probes
        What measures the ceilings.

    Raises
    ------
    UnsupportedError
        If the ceilings come out absurd.
    """
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(request.threads)
        if begun is None:
            start_s = clock()
            progress("measuring ceilings", 0, 1)
            fingerprint = read_fingerprint(request.machine)
            begun = MachineProfile(
                created=datetime.now(UTC),
                budget=request.budget,
                threads=request.threads,
                fingerprint=fingerprint,
                ceilings=measure_ceilings(fingerprint, probes, threads=request.threads),
                samples=(),
                elementwise=_elementwise(request.threads, TIME_TABLES[request.budget], progress),
                networks=(),
                stability=(),
                duration_s=clock() - start_s,
            )
        session = _Session(request, begun, keep=keep, progress=progress, clock=clock, probes=probes)
        session.measure(spread_problems(request.budget, request.threads), share=1.0 if choose is None else SPREAD_SHARE)
        if choose is not None:
            session.measure_chosen(choose)
        return session.profile
    finally:
        torch.set_num_threads(threads_before)


class _Session:
    """A profile that grows until its budget ends."""

    def __init__(
        self,
        request: ProfileRequest,
        begun: MachineProfile,
        *,
        keep: Callable[[MachineProfile], None] | None,
        progress: Progress,
        clock: Callable[[], float],
        probes: Probes,
    ) -> None:
        self.profile = begun
        self._request = request
        self._table = TIME_TABLES[request.budget]
        self._keep, self._progress, self._clock, self._probes = keep, progress, clock, probes
        self._start_s = clock() - begun.duration_s
        self._kernels_from_s = min(begun.duration_s, self._table.total_s)
        self._kept_s = self._watched_s = begun.duration_s
        self._generator = torch.Generator().manual_seed(SEED + len(begun.samples))
        self._known = {sample.problem for sample in begun.samples}

    def measure(self, problems: Iterable[Problem], *, share: float) -> None:
        """Measure problems in turn, up to a share of the budget; those measured before are passed over."""
        until_s = share * self._table.total_s
        for number, problem in enumerate(problems):
            if problem in self._known:
                continue
            left_s = until_s - self._elapsed_s()
            if left_s < self._table.problem_s:
                break
            kernels = kernels_to_time(
                problem, self._request.machine, self._request.registry, every_isa=number % LESSER_ISA_EVERY == 0
            )
            if kernels and expected_time_s(problem, len(kernels)) <= left_s:
                self._add(problem, kernels)

    def measure_chosen(self, choose: Choose) -> None:
        """Measure random layers, some at a time, those first that the model of what is known so far asks for."""
        candidates = fresh_problems(self._request.budget, self._request.threads, seed=CANDIDATE_SEED)
        for end in CHOICE_SHARES:
            if self._elapsed_s() < end * self._table.total_s - self._table.problem_s:
                count = math.ceil((end * self._table.total_s - self._elapsed_s()) / self._table.problem_s)
                offered = islice(candidates, max(CANDIDATES, CANDIDATES_EACH * count))
                pool = [problem for problem in offered if problem not in self._known]
                self._progress("choosing what to measure", 0, 1)
                self.measure(choose(self.profile, pool, count), share=end)

    def _add(self, problem: Problem, kernels: Sequence[KernelSpec]) -> None:
        torch.set_num_threads(problem.threads)
        samples = sample_kernels(problem, kernels, generator=self._generator, budget_s=self._table.problem_s)
        self._known.add(problem)
        elapsed_s = self._elapsed_s()
        stability = self.profile.stability
        if elapsed_s - self._watched_s >= WATCH_EVERY_S:
            self._watched_s = elapsed_s
            rate = self._probes.peak_flop_per_s(WATCHED_UNIT, WATCH_S, self._request.threads)
            stability += () if rate is None else (StabilitySample(at_s=elapsed_s, flop_per_s=rate),)
        self.profile = self.profile.model_copy(
            update={
                "samples": self.profile.samples + samples,
                "stability": stability,
                "duration_s": elapsed_s,
            }
        )
        if self._keep is not None and elapsed_s - self._kept_s >= KEEP_EVERY_S:
            self._kept_s = elapsed_s
            self._keep(self.profile)
        total_s = self._table.total_s
        self._progress(
            "measuring kernels", min(elapsed_s, total_s) - self._kernels_from_s, total_s - self._kernels_from_s
        )

    def _elapsed_s(self) -> float:
        return self._clock() - self._start_s


def _elementwise(threads: int, table: TimeTable, progress: Progress) -> tuple[ElementwiseSample, ...]:
    samples: list[ElementwiseSample] = []
    sizes = table.elementwise_sizes
    total = len(OPERATIONS) * len(sizes)
    for sample in measure_elementwise(threads=threads, budget_s=table.elementwise_s, sizes_bytes=sizes):
        samples.append(sample)
        progress("measuring element-wise operations", len(samples), total)
    return tuple(samples)


def expected_time_s(problem: Problem, kernels: int, device: Device = "cpu") -> float:
    """What measuring so many kernels on a problem may take at least, in seconds."""
    return CALLS_AT_LEAST * kernels * problem.flop_dense_equiv / (SLOW_FLOP_PER_S[device] * problem.threads)
