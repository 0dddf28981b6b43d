"""The report: one offline HTML page that shows one run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..kernels.documents import write_text
from .curves import SpeedupCurve
from .facts import Fact
from .inputs import ReportInputs
from .layers import LayerRow, layer_table
from .machine import CeilingRow, ceiling_table, machine_facts, profile_mismatch
from .plot_curves import CurvePanel, plot_curves
from .plot_front import plot_front
from .plot_hosts import plot_hosts
from .plot_prediction import (
    PredictionQuality,
    dense_predictions,
    planned_predictions,
    plot_prediction,
    prediction_quality,
)
from .plot_roofline import plot_roofline
from .plot_training import plot_training
from .request import request_facts
from .solution import solution_facts, training_facts
from .tables import Row, headline_table
from .verdict import TargetCheck, check_target, give_verdict

_BREAKABLE = re.compile(r"([._:+/-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    """All that the template shows, formatted; None or empty where there is nothing to show."""

    inputs: ReportInputs
    verdict: str
    target: TargetCheck
    headline: tuple[Row, ...]
    hosts: Markup
    roofline: Markup | None
    curves: tuple[CurvePanel, ...]
    prediction: Markup | None
    prediction_quality: tuple[PredictionQuality, ...]
    layers: tuple[LayerRow, ...]
    training: tuple[Markup, ...]
    training_facts: tuple[Fact, ...]
    front: Markup | None
    solution: tuple[Fact, ...]
    machine: tuple[Fact, ...]
    ceilings: tuple[CeilingRow, ...]
    mismatch: tuple[str, ...]
    request: tuple[Fact, ...]


def write_report(path: Path, html: str) -> None:
    """Write the page, whole or not at all.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_text(path, html)


def render_report(inputs: ReportInputs, curves: Sequence[SpeedupCurve]) -> str:
    """The page as HTML that loads nothing: styles and plots are inside, scripts there are none.

    Parameters
    ----------
    curves : sequence of SpeedupCurve
        From `speedup_curves`; empty where there is no performance model, which the page then says.
    """
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template("report.html.j2").render(view=_view(inputs, curves))


def _view(inputs: ReportInputs, curves: Sequence[SpeedupCurve]) -> ReportView:
    plan, measurements = inputs.plan, inputs.measurements
    planned, dense = planned_predictions(measurements), dense_predictions(plan, measurements)
    profile, history = inputs.profile, inputs.history
    target = check_target(plan.target, measurements, batch=plan.input_shape[0], planned_bytes=plan.totals.planned_bytes)
    return ReportView(
        inputs=inputs,
        verdict=give_verdict(measurements, plan.solver),
        target=target,
        headline=headline_table(measurements, plan),
        hosts=plot_hosts(measurements),
        roofline=None if profile is None else plot_roofline(plan, measurements, profile),
        curves=plot_curves(curves, plan, measurements),
        prediction=plot_prediction(planned, dense) if planned else None,
        prediction_quality=tuple(
            prediction_quality(kernels, predictions)
            for kernels, predictions in (("planned", planned), ("dense", dense))
            if predictions
        ),
        layers=layer_table(plan, measurements),
        training=() if history is None else plot_training(history),
        training_facts=() if history is None else training_facts(history),
        front=plot_front(plan),
        solution=solution_facts(plan),
        machine=machine_facts(measurements),
        ceilings=() if profile is None else ceiling_table(profile),
        mismatch=() if profile is None else profile_mismatch(measurements, profile),
        request=request_facts(inputs, target),
    )


def _breakable(text: str) -> Markup:
    """Let a long name break after its punctuation, where a column is narrow."""
    return Markup("<wbr>").join(escape(piece) for piece in _pieces(text))


def _pieces(text: str) -> list[str]:
    words = _BREAKABLE.split(text)
    return ["".join(words[index : index + 2]) for index in range(0, len(words), 2)]
