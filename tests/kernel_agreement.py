"""Whether a kernel agrees with the reference and leaves its arguments alone: one check for every kernel and device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseplan.kernels.dense import TORCH_DTYPES
from sparseplan.kernels.inputs import LayerInputs
from sparseplan.kernels.layout import CPU, activation_shape, is_in_layout
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.reference import error_limit, relative_error
from sparseplan.kernels.reorder import from_layout
from sparseplan.kernels.spec import KernelSpec
from sparseplan.kernels.weights import impose_pattern


def awkward_weights(problem: Problem, generator: torch.Generator, *, scattered: float) -> dict[str, Tensor]:
    """Weights with the zeros of the pattern, and with zeros that have nothing to do with it.

    Parameters
    ----------
    scattered : float
        Share of the weights that are not zero where zeros are strewn.
    """
    dense = torch.randn(problem.weight_shape, generator=generator)
    dense[dense == 0] = 1.0
    single = torch.zeros_like(dense)
    single[-1, -1, -1, -1] = 1.5
    return {
        "pattern": impose_pattern(dense, problem),
        "scattered": dense * (torch.rand(problem.weight_shape, generator=generator) < scattered),
        "all_dense": dense,
        "all_zero": torch.zeros_like(dense),
        "single": single,
    }


def check_agreement(
    kernel: KernelSpec, inputs: LayerInputs, *, device: torch.device = CPU, where: str = "", runs: int = 1
) -> None:
    """Pack and run on a device; compare shape, dtype, memory order, result and untouched arguments.

    Parameters
    ----------
    where : str
        Said where something differs.
    runs : int
        Times that the packed layer is run: all must give the same.
    """
    problem, there = inputs.problem, inputs.on(device)
    taken = (there.weight, there.x_for(kernel), there.residual_for(kernel))
    before = tuple(None if one is None else one.clone() for one in taken)
    with torch.inference_mode():
        packed = there.pack(kernel)
        y, *others = (kernel.run(packed, *taken[1:]) for _ in range(runs))
    where = f"{where} relu {inputs.relu}, residual {inputs.residual is not None}"
    assert y.shape == activation_shape(problem.output_shape, kernel.layout), where
    assert y.dtype == TORCH_DTYPES[problem.dtype], where
    assert is_in_layout(y, kernel.layout), where
    plainly = from_layout(y.cpu(), kernel.layout, problem.n)
    assert relative_error(plainly, inputs.expected()) <= error_limit(problem), where
    for other in others:
        assert torch.equal(plainly, from_layout(other.cpu(), kernel.layout, problem.n)), f"{where}: runs differ"
    for one, copy in zip(taken, before, strict=True):
        assert one is copy or torch.equal(one, copy), f"{where}: an argument was changed"


def fill_new_memory_with_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that a kernel forgets to write stays NaN."""
    for home, name in ((torch, "empty"), (Tensor, "new_empty")):
        monkeypatch.setattr(home, name, _filled_with_nan(getattr(home, name)))


def _filled_with_nan(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def allocate_nan(*arguments: Any, **options: Any) -> Tensor:
        fresh = allocate(*arguments, **options)
        return fresh.fill_(math.nan) if fresh.is_floating_point() else fresh

    return allocate_nan
