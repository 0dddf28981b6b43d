"""Judge predictors on cases: problems that were measured under several kernels after the predictors were made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from scipy import stats

from ..kernels.problem import Problem
from ..profiles.sample_kernels import pooled_sample
from ..profiles.schema import KernelSample
from .limits import Floats
from .predict import PerformanceModel, Prediction
from .schema import FamilyQuality, Quality

EVERYTHING = "all"
MODEL = "sparseplan"
REPEATED = "measured once"
UNDECIDED_FRAC = 0.05
"""Closer than this, sparse and dense are equal for all practical purposes, and either choice is right."""
FEWEST_TO_RANK = 3

Answer = TypeVar("Answer")


class Predictor(Protocol):
    """Anything that foresees times."""

    def times(self, problems: Sequence[Problem], kernel: str) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One problem under all kernels that were timed on it, in alternation.

    Attributes
    ----------
    samples : tuple of KernelSample
        By kernel: all takes pooled.
    dense : frozenset of str
        Kernels among them that take the zeros for numbers.
    takes : tuple of tuple of KernelSample
        What was pooled: the same kernels, minutes apart.
    """

    problem: Problem
    samples: tuple[KernelSample, ...]
    dense: frozenset[str]
    takes: tuple[tuple[KernelSample, ...], ...] = ()

    def asked(self, kernel: str) -> Problem:
        """What a predictor is asked: a dense kernel runs the dense layer."""
        return self.problem.as_dense() if kernel in self.dense else self.problem

    def judged(self) -> tuple[KernelSample, ...]:
        """Dense kernels are judged on dense problems; on sparse ones they are rivals only."""
        if self.problem.pattern == "dense":
            return self.samples
        return tuple(sample for sample in self.samples if sample.kernel not in self.dense)


def judge(
    cases: Sequence[Case], model: PerformanceModel, baselines: Mapping[str, Predictor]
) -> tuple[FamilyQuality, ...]:
    """The quality of the model and of each baseline, by family of problems and over all.

    Beside them stands `REPEATED`, how well the first take foretells the others: the machine's own repeatability, which
    no prediction can be expected to beat.
    """
    answers = model_predictions(cases, model)
    judged: dict[str, tuple[Sequence[Case], Mapping[tuple[int, str], float]]] = {
        MODEL: (cases, {key: answer.median_s for key, answer in answers.items()})
    }
    for name, baseline in baselines.items():
        judged[name] = cases, _ask(cases, baseline.times)
    if all(len(case.takes) > 1 for case in cases):
        first = {
            (number, sample.kernel): sample.time_s.median
            for number, case in enumerate(cases)
            for sample in case.takes[0]
        }
        judged[REPEATED] = [_later(case) for case in cases], first
    families: dict[str, list[int]] = defaultdict(list)
    for number, case in enumerate(cases):
        families[family_of(case.problem)].append(number)
        families[EVERYTHING].append(number)
    return tuple(
        FamilyQuality(
            predictor=predictor,
            family=family,
            quality=_quality(measured, numbers, found, answers if predictor == MODEL else None),
        )
        for family, numbers in sorted(families.items(), key=lambda entry: (entry[0] == EVERYTHING, entry[0]))
        for predictor, (measured, found) in judged.items()
    )


def _later(case: Case) -> Case:
    """The case as its takes after the first have it."""
    later = zip(*case.takes[1:], strict=True)
    return replace(case, samples=tuple(pooled_sample(found) for found in later), takes=())


def model_predictions(cases: Sequence[Case], model: PerformanceModel) -> dict[tuple[int, str], Prediction]:
    """The model's answer for each (case, kernel)."""
    return _ask(cases, model.predict_many)


def family_of(problem: Problem) -> str:
    """Operation, dtype and pattern."""
    return f"{problem.op} {problem.dtype} {problem.pattern}"


def _ask(
    cases: Sequence[Case], answer: Callable[[Sequence[Problem], str], Sequence[Answer]]
) -> dict[tuple[int, str], Answer]:
    rows: dict[str, list[int]] = defaultdict(list)
    for number, case in enumerate(cases):
        for sample in case.samples:
            rows[sample.kernel].append(number)
    return {
        (number, kernel): found
        for kernel, numbers in rows.items()
        for number, found in zip(
            numbers, answer([cases[number].asked(kernel) for number in numbers], kernel), strict=True
        )
    }


def _quality(
    cases: Sequence[Case],
    numbers: Sequence[int],
    medians: Mapping[tuple[int, str], float],
    intervals: Mapping[tuple[int, str], Prediction] | None,
) -> Quality:
    keys = [(number, sample.kernel) for number in numbers for sample in cases[number].judged()]
    measured = np.array([s.time_s.median for number in numbers for s in cases[number].judged()])
    predicted = np.array([medians[key] for key in keys])
    errors = np.abs(predicted / measured - 1.0)
    inside, widths = None, None
    if intervals is not None and keys:
        inside = [intervals[k].low_s <= time_s <= intervals[k].high_s for k, time_s in zip(keys, measured, strict=True)]
        widths = [(intervals[key].high_s - intervals[key].low_s) / intervals[key].median_s for key in keys]
    decisions = [right for number in numbers if (right := _decided_right(cases[number], number, medians)) is not None]
    regrets = [_regret(cases[number], number, medians) for number in numbers]
    return Quality(
        predictions=len(keys),
        median_error_frac=_mean(errors, np.median),
        mean_error_frac=_mean(errors),
        bias_frac=_mean(measured / predicted - 1.0, np.median),
        within_5_frac=_mean(errors <= 0.05),
        within_10_frac=_mean(errors <= 0.1),
        spearman=_rank_correlation(predicted, measured),
        coverage_frac=None if inside is None else _mean(inside),
        width_frac=None if widths is None else _mean(widths, np.median),
        decisions=len(decisions),
        decisions_right_frac=_mean(decisions),
        regret_frac=_mean(regrets),
    )


def _decided_right(case: Case, number: int, medians: Mapping[tuple[int, str], float]) -> bool | None:
    """Whether the predictions pick the right side, or None where the sides are equal or one of them is missing."""
    sparse = [sample for sample in case.samples if sample.kernel not in case.dense]
    dense = [sample for sample in case.samples if sample.kernel in case.dense]
    if not sparse or not dense:
        return None
    ratio = min(s.time_s.median for s in sparse) / min(s.time_s.median for s in dense)
    if abs(ratio - 1.0) <= UNDECIDED_FRAC:
        return None
    foreseen = min(medians[number, s.kernel] for s in sparse) < min(medians[number, s.kernel] for s in dense)
    return foreseen == (ratio < 1.0)


def _regret(case: Case, number: int, medians: Mapping[tuple[int, str], float]) -> float:
    chosen = min(case.samples, key=lambda sample: medians[number, sample.kernel])
    return chosen.time_s.median / min(sample.time_s.median for sample in case.samples) - 1.0


def _rank_correlation(predicted: Floats, measured: Floats) -> float | None:
    """None where there is no order to compare."""
    if len(measured) < FEWEST_TO_RANK or np.ptp(predicted) == 0.0 or np.ptp(measured) == 0.0:
        return None
    return float(stats.spearmanr(predicted, measured).statistic)


def _mean(values: Sequence[float] | np.ndarray, average: Callable[..., object] = np.mean) -> float | None:
    return float(average(values)) if len(values) else None  # type: ignore[arg-type]
