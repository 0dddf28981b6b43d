"""What was asked for, from what, and what came of it."""

from __future__ import annotations

from .facts import Fact, facts
from .inputs import ReportInputs
from .verdict import TargetCheck

_DTYPES = {
    "float32": "float32 only",
    "bfloat16": "bfloat16 only",
    "any": "float32 or bfloat16",
    "int8": "float32 or int8",
}


def request_facts(inputs: ReportInputs, target: TargetCheck) -> tuple[Fact, ...]:
    """The request, its outcome, and the origin of model, data and weights as far as it is known."""
    plan, measurements, manifest = inputs.plan, inputs.measurements, inputs.manifest
    origin = (
        ()
        if manifest is None
        else (
            ("data", manifest.data),
            ("dense weights from", manifest.dense_weights or "none; trained from scratch"),
            ("run started", f"{manifest.created:%Y-%m-%d %H:%M}"),
        )
    )
    return facts(
        ("asked", target.asked),
        ("measured", target.measured),
        ("target", target.status),
        ("verdict of the measurement", measurements.verdict),
        ("network kept", measurements.shipped),
        ("output error, planned against masked", f"{measurements.output_error:.2g} of the largest output"),
        ("model", plan.model),
        ("input", "×".join(str(size) for size in plan.input_shape)),
        ("patterns allowed", ", ".join(plan.patterns)),
        ("number formats allowed", _DTYPES[plan.dtype_policy]),
        *origin,
    )
