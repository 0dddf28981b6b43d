"""What a report shows: the documents of one run, as far as they exist."""

from __future__ import annotations

from dataclasses import dataclass

from ..planner.schema import Plan
from ..profiles.schema import MachineProfile
from ..runtime.schema import Measurements
from ..trainer.schema import RunManifest, TrainingHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInputs:
    """The documents of one run folder; a part that is None is named as missing in its place."""

    plan: Plan
    measurements: Measurements
    history: TrainingHistory | None
    profile: MachineProfile | None
    manifest: RunManifest | None
