"""The core of ``sparseplan predict``: what the model says of given problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..kernels.problem import Problem
from ..kernels.registry import kernel_named
from ..kernels.select import NoKernel, eligible, select, why_ineligible
from ..kernels.spec import KernelSpec, Machine
from ..kernels.weights import make_weight, with_actual_sparsity
from .predict import PerformanceModel, Prediction
from .schema import PredictionRecord


def predict_problems(
    problems: Sequence[Problem],
    *,
    kernel: str,
    model: PerformanceModel,
    machine: Machine,
    registry: tuple[KernelSpec, ...],
    folder: Path | None = None,
) -> tuple[PredictionRecord, ...]:
    """Predict problems under one kernel, all that are eligible, or the one that `select` picks.

    Parameters
    ----------
    kernel : str
        ``auto``, ``all`` or the name of a kernel.
    folder : Path or None
        Where relative `weights` of the problems start from; a problem with a file is predicted at its real sparsity.

    Returns
    -------
    tuple of PredictionRecord
        In the order of the problems. A problem that no kernel can run has one record, with the reason.

    Raises
    ------
    InputError
        If no kernel has that name, or a weights file cannot be read.
    """
    named = None if kernel in ("auto", "all") else kernel_named(kernel, registry)
    actual = [_at_real_sparsity(problem, folder) for problem in problems]
    choices = [_kernels(problem, kernel if named is None else named, machine, registry) for problem in actual]
    pairs = [
        (problem, spec.name)
        for problem, choice in zip(actual, choices, strict=True)
        for spec in (choice if isinstance(choice, tuple) else ())
    ]
    predictions = iter(model.predict_pairs(pairs))
    records: list[PredictionRecord] = []
    for problem, choice in zip(actual, choices, strict=True):
        if isinstance(choice, str):
            records.append(_record(problem, None if named is None else named.name, None, choice))
        else:
            records += [_record(problem, spec.name, next(predictions), None) for spec in choice]
    return tuple(records)


def _at_real_sparsity(problem: Problem, folder: Path | None) -> Problem:
    if problem.weights is None:
        return problem
    return with_actual_sparsity(problem, make_weight(problem, torch.Generator(), folder=folder))


def _kernels(
    problem: Problem, kernel: str | KernelSpec, machine: Machine, registry: tuple[KernelSpec, ...]
) -> tuple[KernelSpec, ...] | str:
    """The kernels to predict, or why there is none."""
    if isinstance(kernel, KernelSpec):
        return why_ineligible(kernel, problem, machine) or (kernel,)
    picked = select(problem, machine, registry)
    if isinstance(picked, NoKernel):
        return picked.message
    return (picked,) if kernel == "auto" else eligible(problem, machine, registry)


def _record(
    problem: Problem, kernel: str | None, prediction: Prediction | None, reason: str | None
) -> PredictionRecord:
    return PredictionRecord(
        problem=problem,
        kernel=kernel,
        time_s=None if prediction is None else prediction.interval,
        binding_resource=None if prediction is None else prediction.bound,
        extrapolated=None if prediction is None else prediction.extrapolated,
        flop_useful=problem.flop_useful,
        flop_dense_equiv=problem.flop_dense_equiv,
        reason=reason,
    )
