"""Plan: what sparsity, if any, each layer of a model should get on a machine."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..kernels.errors import InputError
from ..kernels.pattern import parse_pattern
from ..kernels.progress import Progress, silent
from ..kernels.spec import Device, KernelSpec, Machine
from ..perfmodel.predict import PerformanceModel
from ..profiles.schema import MachineProfile
from .ablation import PrunedWeight
from .accuracy_target import decide_by_accuracy
from .assemble import width_plans
from .candidates import join_loss, wanted_choices
from .capture import Captured, capture
from .couple import NO_COUPLING, Coupling, couple
from .eval_mode import evaluating
from .expected_loss import Effort, expected_losses
from .network_time import Network
from .options import NARROWING, REMOVAL, Machinery
from .request import PlanContext, PlanRequest
from .rest import rest_time
from .sas_choice import decide_sas
from .schema import Plan
from .sensitivity import Sensitivity, WidthChoice
from .stored_bytes import other_bytes
from .sweep import sweep
from .targets import Decision, Question, decide
from .time_options import time_options
from .unusable import unusable_patterns
from .write_plan import write_plan

CALL_CEILINGS: dict[Device, str] = {"cpu": "latency_s:torch_op", "cuda": "latency_s:launch_graph"}
CALL_OPERATIONS: dict[Device, float] = {"cpu": 4.0, "cuda": 1.0}
"""Of calling a swapped layer, beside its kernel, in calls of the smallest torch operation. Measured on two cores of a
Zen 5, where that takes 0.83 us: 1.3 us eager, and 3.2 to 3.6 us under torch.compile, which is how networks are
shipped. Assumed on GPUs."""


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
    plan = write_plan(question, decision, captured, request, context)
    return plan.model_copy(
        update={
            "widths": width_plans(question.network, decision.picked),
            "fixed_widths": coupling.fixed,
            "unusable_patterns": unusable_patterns(
                timed, request.patterns, dtype_policy=request.dtype_policy, machinery=machinery
            ),
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
    return write_plan(question, decision, captured, request, context).model_copy(
        update={"patterns": tuple(dict.fromkeys(request.under_sas.values()))}
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
