"""Structured activation sparsification (SAS): a narrow pre-activation stands for a wide tensor, one of m non-zero.

Channel c of the input owns m consecutive slots of a wide tensor; |x_c| lies in one of them, the others are zero. Bit j
of the slot's number is set where channel c + j of the same pixel (counted round within its group of channels) is at
most 0. The wide weight, ``W[K, m * C, R, S]``, has a column ``m * c + slot`` for each slot; padding adds nothing.

For m = 2 the slot is the sign, and the layer is W+ relu(x) + W- relu(-x) with W+ the even columns and W- the odd ones.
A layer whose odd columns are zero is the layer W+ on relu(x), so SAS replaces a ReLU and can start from one.

References
----------
Sekikawa and Yashima, SAS: Structured Activation Sparsification, ICLR 2024, section 3.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from .errors import InputError, UnsupportedError
from .pattern import SasPart, parse_pattern
from .problem import Problem


class WholeLayer:
    """Marks a layer of our own that tracing takes as one call."""


class SlotLayer(WholeLayer, nn.Module):
    """A layer whose weight [K, m C, ...] has a column for each slot of its input: what networks under SAS are made of.

    Attributes
    ----------
    slots : int
        m.
    """

    slots: int
    weight: Tensor


class _WholeLayers(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, WholeLayer) or super().is_leaf_module(m, module_qualified_name)


def trace_whole_layers(model: nn.Module) -> fx.GraphModule:
    """`torch.fx.symbolic_trace`, with each layer of ours (SAS, int8) one call, as those of torch.nn are."""
    return fx.GraphModule(model, _WholeLayers().trace(model), type(model).__name__)


def slot_numbers(x: Tensor, m: int, *, groups: int = 1) -> Tensor:
    """Which of its m slots each value takes.

    Parameters
    ----------
    x : Tensor
        [N, C, ...], the narrow pre-activation.
    m : int
        Slots of a channel, a power of two.
    groups : int
        Groups of the convolution that reads it: neighbouring channels are counted within a group.

    Returns
    -------
    Tensor
        int64, like `x`, in [0, m).

    Raises
    ------
    InputError
        If `m` is not a power of two above 1, or `groups` does not divide C.
    """
    if m < 2 or m & (m - 1):
        raise InputError(f"SAS takes its slots from sign bits: m must be a power of two of at least 2, got {m}")
    if groups < 1 or x.shape[1] % groups:
        raise InputError(f"groups must divide the {x.shape[1]} channels, got {groups}")
    signs = (x <= 0).unflatten(1, (groups, -1))
    slots = torch.zeros(signs.shape, dtype=torch.int64, device=x.device)
    for bit in range(m.bit_length() - 1):
        slots += signs.roll(-bit, dims=2).long() << bit
    return slots.flatten(1, 2)


def expand_slots(x: Tensor, m: int, *, groups: int = 1) -> Tensor:
    """The wide tensor [N, m * C, ...] of a narrow pre-activation [N, C, ...]; differentiable, see `slot_numbers`."""
    slots = slot_numbers(x, m, groups=groups)
    wide = x.new_zeros((*x.shape[:2], m, *x.shape[2:]))
    return wide.scatter(2, slots.unsqueeze(2), x.abs().unsqueeze(2)).flatten(1, 2)


def widen_weight(weight: Tensor, m: int) -> Tensor:
    """The wide weight [K, m * C, R, S] under which SAS equals the layer `weight` [K, C, R, S] on relu(x)."""
    wide = weight.new_zeros((weight.shape[0], weight.shape[1], m, *weight.shape[2:]))
    wide[:, :, ::2] = weight.unsqueeze(2)
    return wide.flatten(1, 2)


def wide_problem(problem: Problem) -> Problem:
    """The dense layer over all slots; a problem without SAS comes back dense."""
    return replace(problem.as_dense(), c_in=problem.c_in * parse_pattern(problem.pattern).slots)


def expand_for(problem: Problem, x: Tensor) -> Tensor:
    """What the weight of a problem multiplies: the wide tensor under a SAS pattern, `x` itself under any other.

    Raises
    ------
    UnsupportedError
        If the SAS pattern keeps more than one of m activations: where they go is not defined.
    """
    parts = [part for part in parse_pattern(problem.pattern).parts if isinstance(part, SasPart)]
    for part in parts:
        if reason := why_slots_undefined(part):
            raise UnsupportedError(f"{reason}; use sas:1:2 or sas:1:4")
    return expand_slots(x, parts[0].m, groups=problem.groups) if parts else x


def why_slots_undefined(part: SasPart) -> str | None:
    """Why sign bits cannot place the activations of a SAS pattern, or None."""
    if part.n != 1 or part.m & (part.m - 1):
        return f"pattern {part.name!r} places activations by sign bits, which needs 1 of a power of two"
    return None
