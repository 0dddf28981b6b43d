"""What to measure next: problems of which the performance model is least sure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.problem import Problem
from ..kernels.spec import KernelSpec, Machine
from ..profiles.sample_kernels import kernels_to_time
from ..profiles.schema import MachineProfile
from ..profiles.spread import FAMILIES
from .fit import fit_performance_model
from .judge import family_of
from .predict import PerformanceModel, Prediction

OPEN_DECISION = 0.5
"""What an open decision between sparse and dense adds to the width of an interval (in logarithms of time)."""

FAMILY_WEIGHTS = {f"{family.op} {family.dtype} {family.pattern}": family.weight for family in FAMILIES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """Asked by the profiler for the problems worth their time."""

    machine: Machine
    registry: tuple[KernelSpec, ...]

    def __call__(self, profile: MachineProfile, candidates: Sequence[Problem], count: int) -> tuple[Problem, ...]:
        """At most `count` candidates, the least certain ones of each family first, families in turn.

        Parameters
        ----------
        profile : MachineProfile
            What was measured so far.
        """
        model = fit_performance_model(profile, self.registry)
        families: dict[str, list[tuple[float, Problem]]] = defaultdict(list)
        for problem, width in zip(candidates, self._uncertainties(candidates, model), strict=True):
            families[family_of(problem)].append((width, problem))
        ranked = [
            (rank / FAMILY_WEIGHTS.get(family, 1.0), problem)
            for family, found in families.items()
            for rank, (_, problem) in enumerate(sorted(found, key=lambda scored: -scored[0]))
        ]
        return tuple(problem for _, problem in sorted(ranked, key=lambda entry: entry[0])[:count])

    def _uncertainties(self, problems: Sequence[Problem], model: PerformanceModel) -> list[float]:
        """Width of the widest interval of a problem's kernels, more where sparse may or may not beat dense."""
        sparse = _answers(problems, self._kernels(problems), model)
        plain = [problem.as_dense() for problem in problems]
        dense = _answers(plain, self._kernels(plain), model)
        return [
            _width(own) + OPEN_DECISION * (problem.pattern != "dense" and _is_open(own, rivals))
            for problem, own, rivals in zip(problems, sparse, dense, strict=True)
        ]

    def _kernels(self, problems: Sequence[Problem]) -> list[tuple[KernelSpec, ...]]:
        return [kernels_to_time(problem, self.machine, self.registry, every_isa=False) for problem in problems]


def _answers(
    problems: Sequence[Problem], kernels: Sequence[Sequence[KernelSpec]], model: PerformanceModel
) -> list[list[Prediction]]:
    """The predictions of each problem under its kernels, a kernel at a time."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, chosen in enumerate(kernels):
        for kernel in chosen:
            rows[kernel.name].append(row)
    answers: list[list[Prediction]] = [[] for _ in problems]
    for name, numbers in rows.items():
        for row, answer in zip(numbers, model.predict_many([problems[row] for row in numbers], name), strict=True):
            answers[row].append(answer)
    return answers


def _width(answers: Sequence[Prediction]) -> float:
    return max((float(np.log(answer.high_s / answer.low_s)) for answer in answers), default=-np.inf)


def _is_open(sparse: Sequence[Prediction], dense: Sequence[Prediction]) -> bool:
    """Whether the interval of the fastest sparse kernel overlaps that of the fastest dense one."""
    if not sparse or not dense:
        return False
    best, rival = (min(answers, key=lambda each: each.median_s) for answers in (sparse, dense))
    return best.low_s < rival.high_s and rival.low_s < best.high_s
