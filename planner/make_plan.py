"""Plan: what sparsity, if any, each layer of a model should get on a machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from torch import Tensor, nn

from ..kernels.errors import InputError, UnsupportedError
from ..kernels.pattern import SasPart, parse_pattern
from ..kernels.progress import Progress, silent
from ..kernels.spec import KernelSpec, Machine
from ..perfmodel.predict import PerformanceModel
from ..profiles.schema import MachineProfile
from .assemble import LayerWriter, totals_of, width_plans
from .candidates import join_loss, wanted_choices
from .capture import Captured, capture
from .couple import NO_COUPLING, Coupling, couple
from .eval_mode import evaluating
from .network_time import Network
from .options import NARROWING, REMOVAL, Machinery, time_options
from .rest import rest_time
from .schema import DtypePolicy, Plan, Target
from .sensitivity import BUDGET_S, Calibration, estimate_sensitivity
from .targets import Decision, decide, decide_by_accuracy
from .width_loss import width_losses

DEFAULT_PATTERNS = ("unstructured", "block:16x1", "filter", "channel", "shape", "filter+shape")
CALL_CEILING = "latency_s:torch_op"


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
        Exactly one of its values is set.
    patterns : tuple of str
        Patterns that may be chosen.
    calibration : Calibration or None
        Without it, weight magnitudes stand in for the loss.
    sensitivity_budget_s : float
        Wall-clock time for measuring the loss of choices, seconds.
    """

    model_spec: str
    example: Tensor
    target: Target
    dtype_policy: DtypePolicy = "float32"
    patterns: tuple[str, ...] = DEFAULT_PATTERNS
    calibration: Calibration | None = None
    sensitivity_budget_s: float = BUDGET_S

    def __post_init__(self) -> None:
        target = self.target
        points = target.max_accuracy_drop_points
        given = [value for value in (target.speedup, target.latency_s, points) if value is not None]
        if len(given) != 1:
            raise InputError(f"{len(given)} targets given; give exactly one of speedup, latency and accuracy drop")
        # Written so that NaN fails.
        if not (given[0] > 0.0 or points == 0.0):
            raise InputError(f"target {given[0]:g}: allowed is a number above 0")
        if points is not None and self.calibration is None:
            raise InputError("a target for the accuracy drop needs calibration data; give --data, or another target")
        for text in self.patterns:
            if any(isinstance(part, SasPart) for part in parse_pattern(text).parts):
                raise UnsupportedError(
                    f"pattern {text!r} sparsifies activations, it has no mask to plan; leave it out of --patterns"
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
        If a layer has no dense kernel in an allowed dtype, or a pattern is not one of weights.

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
    coupling = _coupling(model, captured, request, progress)
    timed = time_options(
        captured.layers,
        request.patterns,
        dtype_policy=request.dtype_policy,
        machinery=Machinery(
            performance_model=context.performance_model,
            machine=context.machine,
            registry=context.registry,
            call_overhead_s=call_overhead_s(context.profile),
        ),
        groups=coupling.groups,
    )
    # Where nothing is faster there is nothing to weigh against time, and the losses are for information only.
    budget_s = request.sensitivity_budget_s if any(each.choosable for each in timed.layers) else 0.0
    wanted = wanted_choices(timed.layers)
    sensitivity = estimate_sensitivity(
        model,
        wanted,
        layers=[layer.name for layer in captured.layers],
        calibration=request.calibration,
        budget_s=budget_s if wanted else 0.0,
        progress=progress,
    )
    network = Network(
        layers=join_loss(timed.layers, sensitivity),
        widths=timed.widths,
        width_loss=width_losses(
            model, timed.widths.groups, calibration=request.calibration, budget_s=budget_s, progress=progress
        ),
        rest=rest_time(captured.rest, timed.form.dtype, context.performance_model, timed.widths.groups),
    )
    decision = _decide(model, network, request, progress)
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
            for layer, picked in zip(network.layers, decision.picked.layers, strict=True)
        ),
        widths=width_plans(network, decision.picked),
        fixed_widths=coupling.fixed,
        skipped=captured.skipped,
        totals=totals_of(network, decision),
        solver=decision.report,
        sensitivity_source=sensitivity.source,
        machine=context.profile.fingerprint.cpu_model,
        profile_sha256=context.profile_sha256,
        profile_path=context.profile_path,
    )


def _coupling(model: nn.Module, captured: Captured, request: PlanRequest, progress: Progress) -> Coupling:
    """Width groups, where an allowed pattern is theirs to carry out."""
    kinds = {kind for text in request.patterns for kind in parse_pattern(text).kinds}
    if kinds.isdisjoint({*NARROWING, REMOVAL}):
        return NO_COUPLING
    progress("coupling", 0, 1)
    with evaluating(model):
        coupling = couple(model, request.example, layers=[layer.name for layer in captured.layers])
    progress("coupling", 1, 1)
    return coupling


def _decide(model: nn.Module, network: Network, request: PlanRequest, progress: Progress) -> Decision:
    points = request.target.max_accuracy_drop_points
    if points is None or request.calibration is None:
        progress("solve", 0, 1)
        decision = decide(network, request.target)
        progress("solve", 1, 1)
        return decision
    return decide_by_accuracy(model, network, points=points, calibration=request.calibration, progress=progress)


def for_threads(captured: Captured, threads: int) -> Captured:
    """The same layers on so many threads."""
    layers = tuple(replace(layer, problem=replace(layer.problem, threads=threads)) for layer in captured.layers)
    return replace(captured, layers=layers)


def call_overhead_s(profile: MachineProfile) -> float:
    """Of one torch operation, at the thread count nearest to the profile's."""
    found = [ceiling for ceiling in profile.ceilings if ceiling.name == CALL_CEILING]
    if not found:
        raise InputError(f"the profile has no ceiling {CALL_CEILING}; make the profile again")
    return min(found, key=lambda ceiling: abs(ceiling.threads - profile.threads)).value
