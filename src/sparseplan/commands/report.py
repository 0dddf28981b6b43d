"""``sparseplan report``: one HTML file about one run."""

from __future__ import annotations

from pathlib import Path

from ..kernels.registry import REGISTRY
from ..perfmodel.fit import fit_performance_model
from ..planner.store import load_plan
from ..profiles.store import load_profile
from ..reports.curves import speedup_curves
from ..reports.html import ReportInputs, render_report, write_report
from ..runtime.store import load_measurements
from ..trainer.store import RunFolder


def report(run: str | Path) -> Path:
    """Write ``report.html`` into a run folder that has been benched; it needs no network to be read.

    Raises
    ------
    InputError
        If the folder has no plan or no measurements.
    """
    folder = RunFolder(Path(run))
    plan = load_plan(folder.plan)
    profile = load_profile(folder.profile) if folder.profile.exists() else None
    inputs = ReportInputs(
        plan=plan,
        measurements=load_measurements(folder.measurements),
        history=folder.load_history(),
        profile=profile,
        manifest=folder.load_manifest(),
    )
    curves = () if profile is None else speedup_curves(plan, fit_performance_model(profile, REGISTRY))
    write_report(folder.report, render_report(inputs, curves))
    return folder.report
