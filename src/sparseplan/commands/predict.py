"""``sparseplan predict``: what the performance model says of given problems."""

from __future__ import annotations

from pathlib import Path

from ..kernels.documents import read_records, require_writable, write_records
from ..kernels.problem import Problem
from ..kernels.registry import REGISTRY
from ..perfmodel.fit import fit_performance_model
from ..perfmodel.predict_problems import predict_problems
from ..perfmodel.schema import PredictionRecord
from ..profiles.references import profile_file
from ..profiles.store import load_profile
from .elsewhere import machine_of


def predict(
    problems: str | Path, profile: str | Path, *, out: str | Path, kernel: str = "auto"
) -> tuple[PredictionRecord, ...]:
    """Predict times of kernels on problems from a machine profile.

    Parameters
    ----------
    problems : path
        One JSON problem a line (`.jsonl`).
    profile : path
        Made by ``sparseplan profile``, or ``ref:NAME``: a reference profile of a machine one may not have.
    out : path
        One JSON record a line.
    kernel : str
        ``auto``, ``all`` or a name, as for ``measure``.
    """
    source = Path(problems)
    require_writable(Path(out))
    profile_path = profile_file(profile)
    measured = load_profile(profile_path)
    machine = machine_of(measured, profile_path)
    records = predict_problems(
        read_records(source, Problem, kind="problem"),
        kernel=kernel,
        model=fit_performance_model(measured, REGISTRY),
        machine=machine,
        registry=REGISTRY,
        folder=source.parent,
    )
    write_records(Path(out), records)
    return records
