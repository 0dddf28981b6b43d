"""A layer of a torch model that runs on a kernel of the registry."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.dense import TORCH_DTYPES
from ..kernels.errors import InputError
from ..kernels.problem import Problem
from ..kernels.reorder import from_layout, to_layout
from ..kernels.spec import KernelSpec
from ..kernels.weight_view import bias_of, weight_view


class SwappedLayer(nn.Module):
    """Stands where a convolution or linear stood; packed once, immutable, so copies of a model share it.

    Parameters
    ----------
    problem : Problem
        The work, with the exact input shape: a kernel packs for it.
    weight : Tensor
        [K, C, R, S] float32, zeros where the pattern puts them.
    bias : Tensor or None
        [K].
    relu : bool
        Whether the ReLU behind the layer is part of it.
    """

    def __init__(
        self, problem: Problem, kernel: KernelSpec, *, weight: Tensor, bias: Tensor | None, relu: bool
    ) -> None:
        super().__init__()
        self.problem = problem
        self.kernel = kernel
        self.packed: Any = kernel.pack(problem, weight, bias, relu)
        self.key = next(_KEYS)
        _LAYERS[self.key] = self

    @classmethod
    def of(cls, module: nn.Module, problem: Problem, kernel: KernelSpec, *, relu: bool) -> SwappedLayer:
        """The stand-in for a Conv2d or Linear, with its weight and bias."""
        bias = bias_of(module)
        weight = weight_view(module).detach().float()
        return cls(problem, kernel, weight=weight, bias=None if bias is None else bias.float(), relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] (or [..., C] for a linear) in, [N, K, H', W'] (or [..., K]) out, of the dtype of `x`."""
        if torch.compiler.is_compiling():
            result: Tensor = torch.ops.sparseplan.run_layer(x, self.key, self._output_shape(x), self._nhwc)
            return result
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """Run the kernel on `x`, converted to the kernel's layout and dtype where it differs."""
        problem = self.problem
        flat = x.reshape(-1, problem.c_in) if problem.op == "linear" else x
        if flat.shape != problem.input_shape:
            raise InputError(
                f"layer compiled for input {list(problem.input_shape)} got {list(flat.shape)}; "
                "run the model at the shape it was planned for, or plan again for this one"
            )
        layout = self.kernel.layout
        prepared = to_layout(flat.to(TORCH_DTYPES[problem.dtype]), layout)
        y = from_layout(self.kernel.run(self.packed, prepared), layout, problem.n).to(x.dtype)
        return y.view(*x.shape[:-1], problem.c_out) if problem.op == "linear" else y

    def extra_repr(self) -> str:
        return f"{self.kernel.name}, {self.problem.pattern}, sparsity={self.problem.sparsity:.3f}"

    def __deepcopy__(self, memo: dict[int, object]) -> SwappedLayer:
        return self

    @property
    def memory_format(self) -> torch.memory_format:
        """Of the input that needs no conversion, and of the output."""
        return torch.channels_last if self._nhwc else torch.contiguous_format

    @property
    def _nhwc(self) -> bool:
        return self.kernel.layout == "nhwc" and self.problem.op == "conv2d"

    def _output_shape(self, x: Tensor) -> list[int]:
        if self.problem.op == "linear":
            return [*x.shape[:-1], self.problem.c_out]
        return list(self.problem.output_shape)


# An operator's arguments are tensors and numbers: packed weights travel as a number that names the living layer.
_KEYS = itertools.count()
_LAYERS: weakref.WeakValueDictionary[int, SwappedLayer] = weakref.WeakValueDictionary()

_LIBRARY = torch.library.Library("sparseplan", "DEF")
_LIBRARY.define("run_layer(Tensor x, int key, SymInt[] output_shape, bool nhwc) -> Tensor")


def _run_layer(x: Tensor, key: int, output_shape: list[int], nhwc: bool) -> Tensor:
    y = _LAYERS[key].run(x)
    # torch plans memory from the strides that the fake implementation promises, so they must hold.
    return y.contiguous(memory_format=torch.channels_last if nhwc else torch.contiguous_format)


def _run_layer_fake(x: Tensor, key: int, output_shape: list[int], nhwc: bool) -> Tensor:
    memory_format = torch.channels_last if nhwc else torch.contiguous_format
    return torch.empty(output_shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


_LIBRARY.impl("run_layer", _run_layer, "CPU")
torch.library.register_fake("sparseplan::run_layer", _run_layer_fake, lib=_LIBRARY)
