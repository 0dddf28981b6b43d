"""Capture: the layers of a model as problems, with what lies between them."""

from __future__ import annotations

import math
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..kernels.errors import SparseplanWarning
from ..kernels.problem import Problem
from .capture_export import trace_by_export
from .capture_fx import trace_by_fx
from .capture_hooks import trace_by_hooks
from .eval_mode import evaluating
from .rest_operations import RestOperation, rest_operations
from .schema import SkippedLayer
from .trace import Trace, TracedOperation

Method = Literal["export", "fx", "hooks"]

_TRACER_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError)
"""What tracers raise on code that they cannot follow, such as control flow that depends on data."""

_NOT_THE_MODELS = frozenset({Path(torch.__file__).parent, Path(__file__).parent})
"""Folders of the tracers' own code."""

_MODULE_OF: dict[str, type[nn.Module]] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "linear": nn.Linear}
_WEIGHTED = frozenset(
    {
        *(f"{name}{axes}d" for name in ("conv", "convtranspose") for axes in (1, 2, 3)),
        *("bilinear", "embedding", "embeddingbag", "gru", "linear", "lstm", "multiheadattention", "rnn"),
        *("addmm", "baddbmm", "bmm", "einsum", "matmul", "mm"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedLayer:
    """A convolution or linear layer that can be planned.

    Attributes
    ----------
    name : str
        Dotted module name.
    problem : Problem
        Dense, float32, one thread, with the shapes of the example input.
    calls : int
        How often one forward pass runs it.
    """

    name: str
    kind: Literal["conv2d", "linear"]
    problem: Problem
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What one forward pass of a model consists of."""

    layers: tuple[CapturedLayer, ...]
    skipped: tuple[SkippedLayer, ...]
    rest: tuple[RestOperation, ...]
    method: Method
    fallback: str | None
    """Why torch.export was not used: the operation that it could not take, and what was done instead."""


def capture(model: nn.Module, example: Tensor) -> Captured:
    """Find the layers of a model, their real shapes, and the work between them.

    By torch.export; where that cannot follow the model, by torch.fx; else by module hooks, which miss functional
    operations. The model is run in eval mode and left as it was.

    Parameters
    ----------
    example : Tensor
        [N, C, H, W] (or whatever the model takes), N being the batch that is to be planned.

    Raises
    ------
    InputError
        If the model cannot run the example; names the layer and the shape that it was given.
    """
    with evaluating(model):
        # First of all the model is run as it is: a wrong input is told apart from code that a tracer cannot follow.
        trace, method, fallback = _trace(model, example, trace_by_hooks(model, example))
    if fallback is not None:
        warnings.warn(fallback, SparseplanWarning, stacklevel=2)
    return _summarise(model, trace, method, fallback)


def _trace(model: nn.Module, example: Tensor, hooked: Trace) -> tuple[Trace, Method, str | None]:
    try:
        return trace_by_export(model, example), "export", None
    except _TRACER_FAILURES as error:
        reason = f"torch.export cannot take {type(model).__name__}{_place_of(error)}: {_first_line(error)}"
    try:
        return trace_by_fx(model, example), "fx", f"{reason}; captured by torch.fx instead"
    except _TRACER_FAILURES:
        lost = "captured by module hooks instead, which miss functional operations: times between layers are too low"
        return hooked, "hooks", f"{reason}; {lost}"


def _place_of(error: BaseException) -> str:
    """The line of the model's own code at which a tracer gave up."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and _NOT_THE_MODELS.isdisjoint(Path(frame.filename).parents)
    ]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")


def _summarise(model: nn.Module, trace: Trace, method: Method, fallback: str | None) -> Captured:
    modules = dict(model.named_modules())
    shared = _shared_weights(modules)
    found: dict[str, list[Problem]] = {}
    skipped: dict[str, SkippedLayer] = {}
    for operation in trace:
        module = modules[operation.module]
        # The weight of a parametrized layer is no parameter of the operation, yet it is a layer.
        has_weight = operation.weight_bytes > 0.0 or isinstance(module, tuple(_MODULE_OF.values()))
        if operation.operation not in _WEIGHTED or not has_weight:
            continue
        problem = _plan_problem(module, operation, shared.get(operation.module))
        if isinstance(problem, Problem):
            found.setdefault(operation.module, []).append(problem)
        else:
            kind = type(module).__name__ if operation.module else operation.operation
            name = operation.module or f"functional {operation.operation}"
            skipped[operation.module] = SkippedLayer(name=name, kind=kind, reason=problem)
    for name, problems in found.items():
        if len(set(problems)) > 1:
            reason = "called with different input shapes in one forward pass; a plan needs one shape"
            skipped[name] = SkippedLayer(name=name, kind=type(modules[name]).__name__, reason=reason)
    layers = tuple(
        CapturedLayer(name=name, kind=problems[0].op, problem=problems[0], calls=len(problems))
        for name, problems in found.items()
        if name not in skipped
    )
    return Captured(
        layers=layers,
        skipped=tuple(skipped.values()),
        rest=rest_operations(trace, frozenset(layer.name for layer in layers)),
        method=method,
        fallback=fallback,
    )


def _shared_weights(modules: dict[str, nn.Module]) -> dict[str, str]:
    """From a module to another one that holds the same weight parameter."""
    owners: dict[int, list[str]] = {}
    for name, module in modules.items():
        weight = module._parameters.get("weight")
        if weight is not None:
            owners.setdefault(id(weight), []).append(name)
    return {name: names[names[0] == name] for names in owners.values() if len(names) > 1 for name in names}


def _plan_problem(module: nn.Module, operation: TracedOperation, twin: str | None) -> Problem | str:
    """The layer's problem, or the reason why it cannot be planned."""
    standard = _MODULE_OF.get(operation.operation)
    if standard is None:
        return f"{operation.operation} has no sparse kernel; only Conv1d, Conv2d and Linear are planned"
    if not isinstance(module, standard):
        return (
            f"{operation.operation} is computed outside a Conv1d, Conv2d or Linear module, so no kernel can take "
            "its place"
        )
    if type(module).forward is not standard.forward:
        return f"{type(module).__name__} has a forward of its own; a kernel would leave out what that adds"
    if "weight" not in module._parameters:
        return "its weight is computed from other tensors (a parametrization); a mask would be overwritten"
    if twin is not None:
        return f"it shares its weight with {twin!r}; zeros for one would be zeros for both"
    shape = operation.inputs[0].shape
    if isinstance(module, nn.Linear):
        return Problem(op="linear", n=math.prod(shape[:-1]), c_in=module.in_features, c_out=module.out_features)
    return _conv_problem(module, shape)


def _conv_problem(module: nn.Module, shape: tuple[int, ...]) -> Problem | str:
    """A Conv1d is a convolution of images of height 1."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    axes = len(module.kernel_size)
    if len(shape) != 2 + axes:
        wanted = "[N, C, H, W]" if axes == 2 else "[N, C, L]"
        return f"its input {list(shape)} has no batch axis; kernels take {wanted}"
    if module.padding_mode != "zeros":
        return f"padding mode {module.padding_mode!r}; kernels pad with zeros"
    padding = _padding(module)
    if padding is None:
        return "'same' padding of an even kernel is wider on one side; kernels pad both sides alike"
    return Problem(
        op="conv2d",
        n=shape[0],
        c_in=module.in_channels,
        h_in=shape[2] if axes == 2 else 1,
        w_in=shape[-1],
        c_out=module.out_channels,
        kernel=_pair(module.kernel_size, 1),
        stride=_pair(module.stride, 1),
        padding=_pair(padding, 0),
        dilation=_pair(module.dilation, 1),
        groups=module.groups,
    )


def _pair(extents: tuple[int, ...], height: int) -> tuple[int, int]:
    """[H, W]; `height` stands for the axis that a Conv1d lacks."""
    first, second = extents if len(extents) == 2 else (height, *extents)
    return first, second


def _padding(module: nn.Conv1d | nn.Conv2d) -> tuple[int, ...] | None:
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    if module.padding == "same":
        totals = [dilation * (size - 1) for size, dilation in zip(module.kernel_size, module.dilation, strict=True)]
        return None if any(total % 2 for total in totals) else tuple(total // 2 for total in totals)
    assert isinstance(module.padding, tuple)
    return module.padding
