"""A layer of a torch model that runs on a kernel of the registry, eagerly or as a custom operator of torch."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..kernels.dense import TORCH_DTYPES
from ..kernels.errors import InputError, UnsupportedError
from ..kernels.here import machine_here
from ..kernels.layout import MEMORY_FORMATS, activation_shape
from ..kernels.problem import Problem
from ..kernels.quantisation import Quantisation
from ..kernels.registry import kernel_named
from ..kernels.reorder import from_layout, to_layout
from ..kernels.spec import KernelSpec, Layout
from ..kernels.store_bytes import load_bytes, store_bytes
from ..kernels.weight_view import bias_of, weight_view
from ..trainer.int8_layers import Int8Layer
from .schema import LayerCall

_PLAIN = torch.contiguous_format


class SwappedLayer(nn.Module):
    """Stands where a convolution or linear stood; packed once, immutable, so copies of a model share it.

    A kernel packs on the device of the weight, and stays there: move a network before its layers are swapped.

    Weight and bias stay with it as buffers, float32 whatever the network's dtype: they are what is saved and exported,
    and what another machine packs again.

    Parameters
    ----------
    problem : Problem
        The work, with the exact input shape: a kernel packs for it.
    weight : Tensor
        [K, C, R, S] float32, zeros where the pattern puts them.
    bias : Tensor or None
        [K].
    relu : bool
        Whether the ReLU behind the layer (behind the residual, where there is one) is part of it.
    quantisation : Quantisation or None
        Of an int8 kernel, which is given bytes and whose bytes become the network's numbers again.
    gives_blocked : bool
        Whether the output stays in the kernel's blocked layout, for layers of the same one.

    Attributes
    ----------
    memory_format : torch.memory_format
        Of the input that needs no conversion, and of the output.
    call : str
        What the operator is told besides its tensors (`LayerCall`).
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        problem: Problem,
        kernel: KernelSpec,
        *,
        weight: Tensor,
        bias: Tensor | None,
        relu: bool,
        quantisation: Quantisation | None = None,
        gives_blocked: bool = False,
    ) -> None:
        super().__init__()
        self.problem = problem
        self.kernel = kernel
        self.relu = relu
        self.gives_blocked = gives_blocked
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.quantisation = quantisation
        stored = () if quantisation is None else (quantisation,)
        self.packed: Any = kernel.pack(problem, weight, bias, relu, *stored)
        self.call = LayerCall(
            problem=problem,
            kernel=kernel.name,
            layout=kernel.layout,
            relu=relu,
            gives_blocked=gives_blocked,
            weights=_digest(weight, bias),
            quantisation=quantisation,
        ).model_dump_json()
        # What each call asks for, found once: a call must cost microseconds.
        self._run: Callable[..., Tensor] = kernel.run
        self._input_shape = torch.Size(problem.input_shape)
        self._output_shape = torch.Size(problem.output_shape)
        self._dtype = TORCH_DTYPES[problem.dtype]
        self._is_direct = kernel.layout in MEMORY_FORMATS and quantisation is None
        self.memory_format = _memory_format(problem, kernel.layout)
        _LAYERS[self.call] = self

    @classmethod
    def of(
        cls, module: nn.Module, problem: Problem, kernel: KernelSpec, *, relu: bool, gives_blocked: bool = False
    ) -> SwappedLayer:
        """The stand-in for a Conv1d, Conv2d or Linear, with its weight and bias."""
        bias = bias_of(module)
        weight = weight_view(module).detach().float()
        bias = None if bias is None else bias.float()
        stored = module.quantisation() if kernel.dtype == "int8" and isinstance(module, Int8Layer) else None
        return cls(
            problem, kernel, weight=weight, bias=bias, relu=relu, quantisation=stored, gives_blocked=gives_blocked
        )

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[N, C, H, W] ([N, C, L] of a Conv1d, [..., C] of a linear) in, channels K out, of the dtype of `x`.

        `residual` is like the output and is added to it, before the ReLU.
        """
        if torch.compiler.is_compiling():
            result: Tensor = torch.ops.sparseplan.run_layer(x, self.weight, self.bias, residual, self.call)
            return result
        return self.run(x, residual)

    def run(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Run the kernel on `x`, converted to the kernel's layout and dtype where it differs."""
        if self._is_direct and x.shape == self._input_shape and x.dtype is self._dtype:
            if residual is None:
                return self._run(self.packed, x)
            # A residual in another memory order is copied; one of another shape the kernel refuses.
            if residual.dtype is self._dtype:
                return self._run(self.packed, x, to_layout(residual, self.kernel.layout))
        return self._run_converted(x, residual)

    def extra_repr(self) -> str:
        return f"{self.kernel.name}, {self.problem.pattern}, sparsity={self.problem.sparsity:.3f}"

    def __deepcopy__(self, memo: dict[int, object]) -> SwappedLayer:
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SwappedLayer:
        """Nothing: a network that is cast or moved to channels_last leaves packed layers as they are."""
        return self

    def _run_converted(self, x: Tensor, residual: Tensor | None) -> Tensor:
        problem, layout = self.problem, self.kernel.layout
        given = self._to_kernel(x, problem.c_in, "x")
        wanted = activation_shape(problem.input_shape, layout)
        if given.shape != wanted:
            raise InputError(
                f"layer compiled for input {list(problem.input_shape)} got {list(x.shape)}; "
                "run the model at the shape it was planned for, or plan again for this one"
            )
        y = self._run(self.packed, given, None if residual is None else self._to_kernel(residual, problem.c_out, "y"))
        if self.gives_blocked:
            return y.to(x.dtype)
        y = from_layout(y, layout, problem.n)
        if self.quantisation is not None:
            y = load_bytes(y, self.quantisation.y_scale, self.quantisation.y_zero_point)
        y = y.to(x.dtype)
        return y.reshape(_output_shape(problem, x))

    def _to_kernel(self, x: Tensor, channels: int, stored_as: Literal["x", "y"]) -> Tensor:
        """Activations as the kernel takes them; blocked ones come from a layer of the same layout."""
        if x.dim() == 5:
            return x.to(self._dtype)
        plain = _as_problem(self.problem, x, channels)
        if plain.dim() == 4 and plain.shape[0] != self.problem.n:
            return plain
        if self.quantisation is not None:
            return to_layout(self._stored(plain, stored_as), self.kernel.layout)
        return to_layout(plain.to(self._dtype), self.kernel.layout)

    def _stored(self, x: Tensor, stored_as: Literal["x", "y"]) -> Tensor:
        """Bytes: inputs as x is stored, a residual as y."""
        by = self.quantisation
        assert by is not None
        scale, zero_point = (by.x_scale, by.x_zero_point) if stored_as == "x" else (by.y_scale, by.y_zero_point)
        return store_bytes(x, scale, zero_point)


def _as_problem(problem: Problem, x: Tensor, channels: int) -> Tensor:
    """Activations as the problem has them: a linear's as [N, C], those of a Conv1d as images of height 1."""
    if problem.op == "linear":
        return x.reshape(-1, channels)
    return x.unsqueeze(2) if x.dim() == 3 else x


def _output_shape(problem: Problem, x: Tensor) -> list[int]:
    """Of the output for an input of the shape of `x`."""
    if problem.op == "linear":
        return [*x.shape[:-1], problem.c_out]
    n, channels, height, width = problem.output_shape
    return [n, channels, width] if x.dim() == 3 else [n, channels, height, width]


def _memory_format(problem: Problem, layout: Layout) -> torch.memory_format:
    nhwc = layout == "nhwc" and problem.op == "conv2d"
    return torch.channels_last if nhwc else _PLAIN


def _digest(weight: Tensor, bias: Tensor | None) -> str:
    """Of the weights: tells layers of the same problem apart, in this process and in any other."""
    digest = hashlib.sha256()
    for tensor in (weight, bias):
        digest.update(b"none" if tensor is None else tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# The operator carries all that a fresh process needs to pack the layer: the weights, and the rest as text. Packed
# layers are found by that text; those of this process live as long as their network, those of loaded programs for good.
_LAYERS: weakref.WeakValueDictionary[str, SwappedLayer] = weakref.WeakValueDictionary()
_LOADED: dict[str, SwappedLayer] = {}

_LIBRARY = torch.library.Library("sparseplan", "DEF")
_LIBRARY.define("run_layer(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str call) -> Tensor")


def _run_layer(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, call: str) -> Tensor:
    layer = _LAYERS.get(call)
    if layer is None:
        layer = _LOADED[call] = _unpacked(weight, bias, call)
    # torch plans memory from the strides that the fake implementation promises, so they must hold.
    y = layer.run(x, residual)
    return y.contiguous(memory_format=layer.memory_format if y.dim() == 4 else _PLAIN)


def _unpacked(weight: Tensor, bias: Tensor | None, call: str) -> SwappedLayer:
    """The layer of a program that was loaded, packed for this machine.

    Raises
    ------
    InputError
        If this version has no kernel of that name.
    UnsupportedError
        If the kernel cannot run here.
    """
    wanted = _parsed(call)
    kernel = kernel_named(wanted.kernel)
    reason = kernel.why_unsupported(wanted.problem, machine_here(kernel.device))
    if reason is not None:
        raise UnsupportedError(
            f"kernel {kernel.name} of the loaded program cannot run here: {reason}; "
            "plan with a profile of this machine and export again"
        )
    return SwappedLayer(
        wanted.problem,
        kernel,
        weight=weight.detach(),
        bias=bias,
        relu=wanted.relu,
        quantisation=wanted.quantisation,
        gives_blocked=wanted.gives_blocked,
    )


@lru_cache(maxsize=4096)
def _parsed(call: str) -> LayerCall:
    return LayerCall.model_validate_json(call)


def _run_layer_fake(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, call: str) -> Tensor:
    wanted = _parsed(call)
    shape = _output_shape(wanted.problem, x)
    if wanted.gives_blocked:
        shape = list(activation_shape(wanted.problem.output_shape, wanted.layout))
    order = _memory_format(wanted.problem, wanted.layout) if len(shape) == 4 else _PLAIN
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=order)


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("run_layer", _run_layer, _device)
torch.library.register_fake("sparseplan::run_layer", _run_layer_fake, lib=_LIBRARY)
