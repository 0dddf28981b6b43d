"""SAS 1:2 on a GPU as a dense layer of twice the input channels, over the positive and the negative half of the input.

The slot of a value is its sign, so all first slots side by side are relu(x) and all second ones relu(-x). A dense layer
does not mind the order of its channels: one pass writes both halves, and a library multiplies the zeros too, which
`sas_sparse` does not. The libraries of 2:4 products could not be used: they either take no metadata that others wrote
(cuSPARSELt) or are not built for compute capability 9 (CUTLASS in torch).

References
----------
Sekikawa and Yashima, SAS: Structured Activation Sparsification, ICLR 2024, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..check import check_tensor, check_weight_shapes
from ..dense import SHORT_DTYPES, TORCH_DTYPES
from ..layout import empty_activation
from ..pattern import parse_pattern
from ..problem import Problem
from ..sas import wide_problem
from ..sas_wide import slots_outermost, why_wide_unsupported
from ..spec import Cost, KernelSpec, Machine
from . import dense

SLOTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedHalves:
    """A dense layer over both halves, on the device of its weight.

    Attributes
    ----------
    inner : Any
        The weights as the dense kernel packs them.
    device : torch.device
        Where input and residual must lie.
    """

    problem: Problem
    inner: Any
    device: torch.device


def pack_halves(
    problem: Problem, weight: Tensor, bias: Tensor | None, relu: bool, *, inner: KernelSpec
) -> PackedHalves:
    """Put the columns of all first slots before those of all second ones, and pack for the dense kernel `inner`.

    Raises
    ------
    InputError
        If the weight has another shape than the problem.
    """
    check_weight_shapes(problem, weight, bias)
    halves = slots_outermost(weight.detach(), problem)
    return PackedHalves(
        problem=problem, inner=inner.pack(wide_problem(problem), halves, bias, relu), device=weight.device
    )


def run_halves(packed: PackedHalves, x: Tensor, residual: Tensor | None = None, *, inner: KernelSpec) -> Tensor:
    """[N, C, H, W] to [N, K, H', W'], both channels_last, or [N, C] to [N, K].

    Raises
    ------
    InputError
        If `x` has another shape, dtype or device than what was packed, or `residual` is not like the output.
    """
    problem, dtype = packed.problem, TORCH_DTYPES[packed.problem.dtype]
    check_tensor("input", x, problem.input_shape, dtype, device=packed.device)
    wide = empty_activation(wide_problem(problem).input_shape, dtype, inner.layout, device=x.device)
    positive, negative = wide.split(problem.c_in, dim=1)
    torch.clamp(x, min=0.0, out=positive)
    torch.clamp(x, max=0.0, out=negative).neg_()
    return inner.run(packed.inner, wide, residual)


def halves_cost(problem: Problem, *, inner: KernelSpec) -> Cost:
    """The dense layer over both halves; these are written, the second one twice, from an input that is read twice."""
    wide = wide_problem(problem)
    cost = inner.cost(wide)
    return replace(cost, bytes_copied=cost.bytes_copied + 4.0 * problem.input_bytes + wide.input_bytes)


def why_halves_unsupported(problem: Problem, machine: Machine, *, inner: KernelSpec) -> str | None:
    """Whatever keeps `inner` from running the wide layer, patterns other than ``sas:1:2``, and groups."""
    if reason := why_wide_unsupported(problem, machine, inner=inner):
        return reason
    if parse_pattern(problem.pattern).slots != SLOTS:
        return f"places activations by their own sign, as sas:1:2 does; the pattern is {problem.pattern!r}"
    if problem.groups > 1:
        return f"puts both halves of all channels side by side, which {problem.groups} groups would mix"
    return None


def _kernel(inner: KernelSpec) -> KernelSpec:
    return KernelSpec(
        name=f"{inner.op}_sas_{SHORT_DTYPES[inner.dtype]}_halves_{inner.layout}__{inner.name.split('__')[1]}",
        op=inner.op,
        patterns=("sas",),
        dtype=inner.dtype,
        isa=inner.isa,
        layout=inner.layout,
        pack=partial(pack_halves, inner=inner),
        run=partial(run_halves, inner=inner),
        cost=partial(halves_cost, inner=inner),
        why_unsupported=partial(why_halves_unsupported, inner=inner),
        device=inner.device,
    )


KERNELS: tuple[KernelSpec, ...] = tuple(_kernel(inner) for inner in dense.KERNELS)
