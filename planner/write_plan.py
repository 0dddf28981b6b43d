"""A decision as a document."""

from __future__ import annotations

from datetime import UTC, datetime

from .assemble import LayerWriter, totals_of
from .capture import Captured
from .request import PlanContext, PlanRequest
from .schema import Plan
from .targets import Decision, Question


def write_plan(
    question: Question, decision: Decision, captured: Captured, request: PlanRequest, context: PlanContext
) -> Plan:
    """Everything but what needs the sensitivity and the shared widths."""
    writer = LayerWriter(context.performance_model)
    return Plan(
        created=datetime.now(UTC),
        model=request.model_spec,
        input_shape=tuple(request.example.shape),
        threads=context.profile.threads,
        dtype_policy=request.dtype_policy,
        patterns=request.patterns,
        target=request.target,
        layers=tuple(
            writer.layer_plan(layer, picked)
            for layer, picked in zip(question.network.layers, decision.picked.layers, strict=True)
        ),
        skipped=captured.skipped,
        totals=totals_of(question, decision),
        solver=decision.report,
        sensitivity_source="magnitude",
        machine=context.profile.machine_name,
        profile_sha256=context.profile_sha256,
        profile_path=context.profile_path,
    )
