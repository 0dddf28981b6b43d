"""Plan: what sparsity, if any, each layer of a model should get on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor, nn

from ..kernels.errors import InputError, UnsupportedError
from ..kernels.pattern import LOW_RANK, SasPart, parse_pattern
from ..kernels.progress import Progress, silent
from ..kernels.sas import why_slots_undefined
from ..kernels.spec import Device, KernelSpec, Machine
from ..perfmodel.predict import PerformanceModel
from ..profiles.schema import MachineProfile
from .ablation import PrunedWeight
from .accuracy_target import decide_by_accuracy
from .assemble import LayerWriter, totals_of, width_plans
from .candidates import join_loss, wanted_choices
from .capture import Captured, capture
from .couple import NO_COUPLING, Coupling, couple
from .eval_mode import evaluating
from .expected_loss import SEARCH_BUDGET_S, Effort, expected_losses
from .network_time import Network
from .options import NARROWING, REMOVAL, Machinery
from .rest import rest_time
from .sas_choice import decide_sas
from .schema import DtypePolicy, Plan, Target
from .sensitivity import BUDGET_S, Calibration, Sensitivity, WidthChoice
from .stored_bytes import other_bytes
from .sweep import FEWEST_POINTS, sweep
from .targets import Decision, Question, decide
from .time_options import time_options

DEFAULT_PATTERNS = ("unstructured", "block:16x1", "filter", "channel", "shape", "filter+shape")
DEFAULT_PATTERNS_OF: dict[Device, tuple[str, ...]] = {
    "cpu": DEFAULT_PATTERNS,
    "cuda": ("block:64x64", "block:32x32", "2:4", "shape"),
}
"""Where none are asked for: what kernels of a device can skip fast on many layers."""
CALL_CEILINGS: dict[Device, str] = {"cpu": "latency_s:torch_op", "cuda": "latency_s:launch_graph"}
CALL_OPERATIONS: dict[Device, float] = {"cpu": 4.0, "cuda": 1.0}
"""Of calling a swapped layer, beside its kernel, in calls of the smallest torch operation. Measured on two cores of a
Zen 5, where that takes 0.83 us: 1.3 us eager, and 3.2 to 3.6 us under torch.compile, which is how networks are
shipped. Assumed on GPUs."""


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


def make_plan(model: nn.Module, request: PlanRequest, *, context: PlanContext, progress: Progress = silent) -> Plan:
    """Decide for each layer the pattern, sparsity, kernel and dtype.

    Layers in which no sparse kernel surely beats the dense one are never pruned; among the others the loss is least at
    the target. The model is left as it was.

    Returns
    -------
    Plan
        Also where the target cannot be met ("infeasible": the fastest plan, and what it reaches) or nothing beats
        dense ("not_worth_it": all layers dense).

    Raises
    ------
    InputError
        If the model cannot run the example, holds weights that are NaN or infinite, or has no layer to plan.
    UnsupportedError
        If a layer has no dense kernel in an allowed dtype, or a pattern is not one of weights; if no kernel can run the
        layers that are to be under SAS.

    References
    ----------
    Park et al., ICLR 2017 (arXiv 1608.01409), section 2.2: layers that cannot gain are left out of pruning.
    """
    progress("capture", 0, 1)
    captured = for_threads(capture(model, request.example), context.profile.threads)
    progress("capture", 1, 1)
    if not captured.layers:
        raise InputError(
            f"{request.model_spec}: no Conv2d or Linear layer can be planned ("
            + ("; ".join(f"{layer.name}: {layer.reason}" for layer in captured.skipped) or "the model has none")
            + ")"
        )
    machinery = machinery_of(
        context.profile, context.performance_model, machine=context.machine, registry=context.registry
    )
    if request.under_sas:
        return _under_sas(model, captured, request, context, machinery)
    coupling = _coupling(model, captured, request, progress)
    timed = time_options(
        captured.layers,
        request.patterns,
        dtype_policy=request.dtype_policy,
        machinery=machinery,
        groups=coupling.groups,
    )
    names = [layer.name for layer in captured.layers]
    choices = wanted_choices(timed.layers)
    # Where nothing is faster there is nothing to weigh against time, and the losses are for information only.
    hopeful = any(each.choosable for each in timed.layers)
    budget_s = request.sensitivity_budget_s if hopeful else 0.0
    rest = rest_time(captured, timed.form.dtype, machinery, timed.widths.groups)
    apart = other_bytes(model, names)

    def ask(found: Sensitivity) -> Question:
        return Question(
            network=Network(
                layers=join_loss(timed.layers, found),
                widths=timed.widths,
                width_loss=tuple(
                    tuple(found.widths[WidthChoice(group=each.group.name, kept=level)] for level in each.levels)
                    for each in timed.widths.groups
                ),
                rest=rest,
            ),
            target=request.target,
            batch=request.example.shape[0],
            other_bytes=apart,
        )

    sensitivity, refitted = expected_losses(
        model,
        choices,
        layers=names,
        widths=timed.widths.groups,
        ask=ask,
        effort=Effort(
            calibration=request.calibration,
            sensitivity_budget_s=budget_s,
            pruned_layers=request.pruned_layers if hopeful else None,
            search_budget_s=request.search_budget_s,
        ),
        progress=progress,
    )
    question = ask(sensitivity)
    decision = _decide(model, question, request, refitted, progress)
    front = sweep(question, request.sweep_points, progress=progress) if request.sweep_points else ()
    plan = _document(question, decision, captured, request, context)
    return plan.model_copy(
        update={
            "widths": width_plans(question.network, decision.picked),
            "fixed_widths": coupling.fixed,
            "front": front,
            "sensitivity_source": sensitivity.source,
            "pruned_layers_path": str(request.pruned_layers.resolve()) if request.pruned_layers and hopeful else None,
        }
    )


def _under_sas(
    model: nn.Module, captured: Captured, request: PlanRequest, context: PlanContext, machinery: Machinery
) -> Plan:
    question, decision = decide_sas(
        model,
        captured,
        request.under_sas,
        batch=request.example.shape[0],
        dtype_policy=request.dtype_policy,
        machinery=machinery,
    )
    return _document(question, decision, captured, request, context).model_copy(
        update={"patterns": tuple(dict.fromkeys(request.under_sas.values()))}
    )


def _document(
    question: Question, decision: Decision, captured: Captured, request: PlanRequest, context: PlanContext
) -> Plan:
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


def _coupling(model: nn.Module, captured: Captured, request: PlanRequest, progress: Progress) -> Coupling:
    """Width groups, where they were asked for and an allowed pattern is theirs to carry out."""
    kinds = {kind for text in request.patterns for kind in parse_pattern(text).kinds}
    if not request.shared_widths or kinds.isdisjoint({*NARROWING, REMOVAL}):
        return NO_COUPLING
    progress("coupling", 0, 1)
    with evaluating(model):
        coupling = couple(model, request.example, layers=[layer.name for layer in captured.layers])
    progress("coupling", 1, 1)
    return coupling


def _decide(
    model: nn.Module, question: Question, request: PlanRequest, refitted: PrunedWeight | None, progress: Progress
) -> Decision:
    if question.target.max_accuracy_drop_points is None or request.calibration is None:
        progress("solve", 0, 1)
        decision = decide(question)
        progress("solve", 1, 1)
        return decision
    return decide_by_accuracy(model, question, refitted=refitted, calibration=request.calibration, progress=progress)


def for_threads(captured: Captured, threads: int) -> Captured:
    """The same layers on so many threads."""
    layers = tuple(replace(layer, problem=replace(layer.problem, threads=threads)) for layer in captured.layers)
    return replace(captured, layers=layers)


def machinery_of(
    profile: MachineProfile,
    performance_model: PerformanceModel,
    *,
    machine: Machine,
    registry: tuple[KernelSpec, ...],
) -> Machinery:
    """What runs layers on the machine of a profile.

    Raises
    ------
    InputError
        If the profile does not say what a call costs.
    """
    return Machinery(
        performance_model=performance_model,
        machine=machine,
        registry=registry,
        call_overhead_s=_call_overhead_s(profile),
    )


def _call_overhead_s(profile: MachineProfile) -> float:
    """Of calling a swapped layer, at the thread count nearest to the profile's; on a GPU in a graph."""
    name = CALL_CEILINGS[profile.device]
    found = [ceiling for ceiling in profile.ceilings if ceiling.name == name]
    if not found:
        raise InputError(f"the profile has no ceiling {name}; make the profile again")
    nearest = min(found, key=lambda ceiling: abs(ceiling.threads - profile.threads))
    return CALL_OPERATIONS[profile.device] * nearest.value
