"""What to measure next: problems of which the performance model is least sure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

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

TURN_S, CALLS = 0.1, 6
"""What measuring a problem takes besides calls that outlast their share of the budget, and how many calls it takes of
each kernel even then."""

FAMILY_WEIGHTS = {f"{family.op} {family.dtype} {family.pattern}": family.weight for family in FAMILIES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """Asked by the profiler for the problems worth their time."""

    machine: Machine
    registry: tuple[KernelSpec, ...]

    def __call__(self, profile: MachineProfile, candidates: Sequence[Problem], count: int) -> tuple[Problem, ...]:
        """At most `count` candidates, those first of each family that promise most for their time; families in turn.

        Parameters
        ----------
        profile : MachineProfile
            What was measured so far.
        """
        model = fit_performance_model(profile, self.registry)
        families: dict[str, list[tuple[float, Problem]]] = defaultdict(list)
        for problem, worth in zip(candidates, self._worth(candidates, model), strict=True):
            families[family_of(problem)].append((worth, problem))
        ranked = [
            (rank / FAMILY_WEIGHTS.get(family, 1.0), problem)
            for family, found in families.items()
            for rank, (_, problem) in enumerate(sorted(found, key=lambda scored: -scored[0]))
        ]
        return tuple(problem for _, problem in sorted(ranked, key=lambda entry: entry[0])[:count])

    def _worth(self, problems: Sequence[Problem], model: PerformanceModel) -> list[float]:
        """Uncertainty over the square root of the time that measuring takes.

        The uncertainty is the width of the widest interval of a problem's kernels, and more where sparse may or may not
        beat dense. The root leaves long problems in: only they tell of long problems.
        """
        sparse = _answers(problems, self._kernels(problems), model)
        plain = [problem.as_dense() for problem in problems]
        dense = _answers(plain, self._kernels(plain), model)
        return [
            (_width(own) + OPEN_DECISION * (problem.pattern != "dense" and _is_open(own, rivals)))
            / math.sqrt(TURN_S + CALLS * sum(answer.median_s for answer in own))
            for problem, own, rivals in zip(problems, sparse, dense, strict=True)
        ]

    def _kernels(self, problems: Sequence[Problem]) -> list[tuple[KernelSpec, ...]]:
        return [kernels_to_time(problem, self.machine, self.registry, every_isa=False) for problem in problems]


def _answers(
    problems: Sequence[Problem], kernels: Sequence[Sequence[KernelSpec]], model: PerformanceModel
) -> list[list[Prediction]]:
    """The predictions of each problem under its kernels."""
    pairs = [(problem, kernel.name) for problem, chosen in zip(problems, kernels, strict=True) for kernel in chosen]
    answers = iter(model.predict_pairs(pairs))
    return [list(islice(answers, len(chosen))) for chosen in kernels]


def _width(answers: Sequence[Prediction]) -> float:
    return max((math.log(answer.high_s / answer.low_s) for answer in answers), default=-math.inf)


def _is_open(sparse: Sequence[Prediction], dense: Sequence[Prediction]) -> bool:
    """Whether the interval of the fastest sparse kernel overlaps that of the fastest dense one."""
    if not sparse or not dense:
        return False
    best, rival = (min(answers, key=lambda each: each.median_s) for answers in (sparse, dense))
    return best.low_s < rival.high_s and rival.low_s < best.high_s
