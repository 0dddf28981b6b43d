"""What every kernel refuses: weights and inputs that do not belong to its problem."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import InputError
from .layout import CPU
from .problem import Problem


def check_tensor(
    name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, *, device: torch.device = CPU
) -> None:
    """Refuse a tensor of another shape, dtype or device.

    Raises
    ------
    InputError
        The message names the tensor.
    """
    if tensor.shape != shape or tensor.dtype is not dtype or tensor.device != device:
        raise InputError(
            f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}; "
            f"the packed problem needs {dtype} {list(shape)} on {device}"
        )


def check_weights(problem: Problem, weight: Tensor, bias: Tensor | None) -> None:
    """Refuse a weight or a bias that does not belong to a problem.

    Raises
    ------
    InputError
        If the shape differs from [K, C, R, S] or [K], or the dtype is not float32.
    """
    check_tensor("weight", weight, problem.weight_shape, torch.float32)
    if bias is not None:
        check_tensor("bias", bias, (problem.c_out,), torch.float32)


def check_weight_shapes(problem: Problem, weight: Tensor, bias: Tensor | None) -> None:
    """As `check_weights`, for kernels that take weights of any dtype on any device.

    Raises
    ------
    InputError
        If a shape differs from [K, C, R, S] or [K].
    """
    wanted = {"weight": (weight, problem.weight_shape), "bias": (bias, (problem.c_out,))}
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise InputError(f"{name} is {list(tensor.shape)}; the packed problem needs {list(shape)}")
