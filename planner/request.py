"""What a plan is asked for, and the machine that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..kernels.errors import InputError, UnsupportedError
from ..kernels.pattern import LOW_RANK, SasPart, parse_pattern
from ..kernels.sas import why_slots_undefined
from ..kernels.spec import Device, KernelSpec, Machine
from ..perfmodel.predict import PerformanceModel
from ..profiles.schema import MachineProfile
from .expected_loss import SEARCH_BUDGET_S
from .schema import DtypePolicy, Target
from .sensitivity import BUDGET_S, Calibration
from .sweep import FEWEST_POINTS

DEFAULT_PATTERNS = ("unstructured", "block:16x1", "filter", "channel", "shape", "filter+shape")
DEFAULT_PATTERNS_OF: dict[Device, tuple[str, ...]] = {
    "cpu": DEFAULT_PATTERNS,
    "cuda": ("block:64x64", "block:32x32", "2:4", "shape"),
}
"""Where none are asked for: what kernels of a device can skip fast on many layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What is asked for.

    Attributes
    ----------
    model_spec : str
        SPEC of the model, for the record.
    example : Tensor
        One batch, [N, C, H, W]: the plan is for this shape.
    target : Target
        At least one of its values is set.
    patterns : tuple of str
        Patterns that may be chosen.
    calibration : Calibration or None
        Without it, weight magnitudes stand in for the loss.
    sensitivity_budget_s : float
        Wall-clock time for measuring the loss of choices, seconds.
    pruned_layers : Path or None
        Folder of the database of pruned layers, made or gone on with: weights are then removed one by one and the
        others refitted, and the plan is searched on the stitched network. Where it holds the losses already, nothing
        is measured. Without it weights go by magnitude, which takes seconds. Its weights are refitted at full width;
        where shared widths cut them, the strongest of what they leave stay.
    search_budget_s : float
        Wall-clock time of the search on the stitched network, seconds.
    sweep_points : int
        Points of the front of loss against time; 0 for none.
    shared_widths : bool
        Whether channels that several layers share may go, in all of them together. Planning then takes longer, minutes
        for deep networks, as every pair of widths of every layer is predicted.
    under_sas : mapping
        From layers to the ``sas:1:m`` that they get, whatever it costs; all others stay dense. Takes no target.
    """

    model_spec: str
    example: Tensor
    target: Target
    dtype_policy: DtypePolicy = "float32"
    patterns: tuple[str, ...] = DEFAULT_PATTERNS
    calibration: Calibration | None = None
    sensitivity_budget_s: float = BUDGET_S
    pruned_layers: Path | None = None
    search_budget_s: float = SEARCH_BUDGET_S
    sweep_points: int = 0
    shared_widths: bool = False
    under_sas: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.target.given
        if given and self.under_sas:
            raise InputError("SAS adds weights for accuracy and saves no time; give a target or --sas, not both")
        for text in self.under_sas.values():
            (part,) = parse_pattern(text).parts
            reason = why_slots_undefined(part) if isinstance(part, SasPart) else f"{text!r} is no sas:1:m"
            if reason is not None:
                raise InputError(f"{reason}; allowed are sas:1:2, sas:1:4, sas:1:8")
        if not given and not self.under_sas:
            raise InputError("no target given; give a speedup, latency, throughput, accuracy drop or model size")
        for name, value in given.items():
            # Written so that NaN fails.
            if not (value > 0.0 or (name == "max_accuracy_drop_points" and value == 0.0)):
                raise InputError(f"target {name} {value:g}: allowed is a number above 0")
        if self.calibration is None and self.target.max_accuracy_drop_points is not None:
            raise InputError("a target for the accuracy drop needs calibration data; give --data, or another target")
        if self.calibration is None and self.pruned_layers is not None:
            raise InputError("a database of pruned layers is made from calibration data; give --data")
        if self.dtype_policy == "int8" and self.pruned_layers is not None:
            raise UnsupportedError(
                "a database of pruned layers does not hold what rounding to int8 costs; plan for int8 without it"
            )
        if 0 != self.sweep_points < FEWEST_POINTS:
            raise InputError(f"a sweep of {self.sweep_points} points; allowed are {FEWEST_POINTS} or more")
        for text in self.patterns:
            if text == LOW_RANK and self.pruned_layers is not None:
                raise UnsupportedError(
                    f"pattern {text!r} removes no weights, a database of removed weights has none of it; leave one out"
                )
            if text != LOW_RANK and not parse_pattern(text).has_mask:
                raise UnsupportedError(
                    f"pattern {text!r} zeroes no weights, it has no mask to plan and train; leave it out of --patterns"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanContext:
    """The machine that is planned for."""

    profile: MachineProfile
    profile_path: str
    profile_sha256: str
    performance_model: PerformanceModel
    machine: Machine
    registry: tuple[KernelSpec, ...]
