"""Three simple predictors to compare the performance model with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.dense import UNITS
from ..kernels.problem import Problem
from ..profiles.schema import KernelSample, MachineProfile
from .features import shape_features
from .limits import Floats, Limits, limits_of

LEAST_DENSITY = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NaiveRoofline:
    """Useful work at the peak, or the bytes of input, output and surviving weights at the bandwidth of main memory."""

    limits: Limits

    def times(self, problems: Sequence[Problem], kernel: str) -> list[float]:
        """[problems], seconds; the same for every kernel."""
        threads = np.array([problem.threads for problem in problems], dtype=float)
        flop = np.array([problem.flop_useful for problem in problems])
        moved = np.array(
            [p.input_bytes + p.output_bytes + p.weight_bytes * (1.0 - p.sparsity) for p in problems], dtype=float
        )
        rate = np.array(
            [
                self.limits.flop_rate(UNITS[problem.dtype], threads[row : row + 1])[0]
                for row, problem in enumerate(problems)
            ]
        )
        bandwidth = self.limits.bandwidth(np.full(len(problems), np.inf), threads)
        found: list[float] = np.maximum(flop / rate, moved / bandwidth).tolist()
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlopOnly:
    """Useful work at the median rate that each kernel reached in the profile; the peak where it was not measured."""

    rate: dict[str, float]
    unseen: NaiveRoofline

    def times(self, problems: Sequence[Problem], kernel: str) -> list[float]:
        """[problems], seconds."""
        if kernel not in self.rate:
            return self.unseen.times(problems, kernel)
        return [max(problem.flop_useful, 1.0) / self.rate[kernel] for problem in problems]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NearestNeighbour:
    """Time of the most similar problem that the same kernel was measured on, scaled by the useful work."""

    samples: dict[str, tuple[KernelSample, ...]]
    scale: Floats
    unseen: NaiveRoofline

    def times(self, problems: Sequence[Problem], kernel: str) -> list[float]:
        """[problems], seconds."""
        known = self.samples.get(kernel)
        if not known:
            return self.unseen.times(problems, kernel)
        places = _places([sample.problem for sample in known]) / self.scale
        found = []
        for place, problem in zip(_places(problems) / self.scale, problems, strict=True):
            nearest = known[int(np.square(places - place).sum(axis=1).argmin())]
            share = max(problem.flop_useful, 1.0) / max(nearest.problem.flop_useful, 1.0)
            found.append(nearest.time_s.median * share)
        return found


def baselines_of(profile: MachineProfile) -> dict[str, NaiveRoofline | FlopOnly | NearestNeighbour]:
    """The baselines by name, each given the same profile as the performance model."""
    naive = NaiveRoofline(limits=limits_of(profile))
    by_kernel: dict[str, list[KernelSample]] = defaultdict(list)
    for sample in profile.samples:
        by_kernel[sample.kernel].append(sample)
    rates = {
        kernel: float(np.median([max(s.problem.flop_useful, 1.0) / s.time_s.median for s in samples]))
        for kernel, samples in by_kernel.items()
    }
    spread = _places([sample.problem for sample in profile.samples]).std(axis=0) if profile.samples else np.ones(1)
    return {
        "flop only": FlopOnly(rate=rates, unseen=naive),
        "naive roofline": naive,
        "nearest neighbour": NearestNeighbour(
            samples={kernel: tuple(samples) for kernel, samples in by_kernel.items()},
            scale=np.where(spread > 0.0, spread, 1.0),
            unseen=naive,
        ),
    }


def _places(problems: Sequence[Problem]) -> Floats:
    """[problems, features]: shapes and the density of the weights."""
    density = np.log([max(1.0 - problem.sparsity, LEAST_DENSITY) for problem in problems])
    return np.column_stack([shape_features(problems), density])
