"""``sparseplan profile --show``: what a profile says, in short."""

from __future__ import annotations

from pathlib import Path

from ..kernels.documents import require_writable, write_text
from ..kernels.errors import InputError
from ..kernels.registry import REGISTRY
from ..perfmodel.schema import ProfileSummary
from ..perfmodel.summarise_profile import summarise_profile
from ..profiles.references import profile_file
from ..profiles.store import load_profile
from ..reports.plot_profile import plot_profile
from .elsewhere import machine_of


def show(profile: str | Path, *, plot: str | Path | None = None) -> ProfileSummary:
    """Summarise a profile: machine, ceilings, stability, and how well each family of kernels is known and pays.

    Parameters
    ----------
    profile : path
        Made by ``sparseplan profile``, or ``ref:NAME``.
    plot : path, optional
        Where the roofline of its samples is written (SVG).

    Raises
    ------
    InputError
        If the profile cannot be read or the plot cannot be written, or there is nothing to plot.
    """
    target = None if plot is None else Path(plot)
    if target is not None:
        require_writable(target)
    source = profile_file(profile)
    measured = load_profile(source)
    if target is not None:
        drawn = plot_profile(measured, REGISTRY)
        if drawn is None:
            raise InputError(f"{profile} has no samples or ceilings to plot at {measured.threads} threads")
        write_text(target, drawn)
    return summarise_profile(measured, machine_of(measured, source), REGISTRY)
