"""Record a forward pass by module hooks: works on any model that runs, but sees no functional operations."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from .trace import Trace, TracedOperation, Value, module_operation, pooling_window, value_of, weight_bytes

_FORWARD_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError)
"""What the forward of a foreign model raises when it is given an input that it does not expect."""


def trace_by_hooks(model: nn.Module, example: Tensor) -> Trace:
    """Run a model in eval mode once and record the modules of it that hold no other modules.

    Raises
    ------
    InputError
        If the model cannot run this input; names the innermost layer and the shape it was given.
    """
    recorder = _Recorder()
    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            for handle in recorder.attach(name, module):
                hooks.callback(handle.remove)
        try:
            model(example)
        except _FORWARD_FAILURES as error:
            raise InputError(_misfit(model, example, recorder.active, error)) from None
    return tuple(recorder.operations)


class _Recorder:
    """Hooks write here; a call that never returned stays in `active`."""

    def __init__(self) -> None:
        self.operations: list[TracedOperation] = []
        self.active: list[tuple[str, nn.Module, tuple[tuple[int, ...], ...]]] = []
        self._inputs: list[tuple[Value, ...]] = []
        self._known: dict[int, tuple[weakref.ref[Tensor], Value]] = {}
        self._count = 0

    def attach(self, name: str, module: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
        is_leaf = next(module.children(), None) is None or isinstance(module, nn.MultiheadAttention)

        def before(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            tensors = [value for value in (*arguments, *named.values()) if isinstance(value, Tensor)]
            self.active.append((name, module, tuple(tuple(tensor.shape) for tensor in tensors)))
            # Values are taken before the call: an in-place module gives its input back as its output.
            self._inputs.append(tuple(self._value(tensor) for tensor in tensors))

        def after(_: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
            self.active.pop()
            inputs = self._inputs.pop()
            if not is_leaf:
                return
            results = result if isinstance(result, list | tuple) else [result]
            operation = module_operation(module)
            self.operations.append(
                TracedOperation(
                    operation=operation,
                    module=name,
                    inputs=inputs,
                    outputs=tuple(self._new_value(tensor) for tensor in results if isinstance(tensor, Tensor)),
                    weight_bytes=weight_bytes(module.parameters()),
                    window=pooling_window(operation, getattr(module, "kernel_size", 1)),
                )
            )

        yield module.register_forward_pre_hook(before, with_kwargs=True)
        yield module.register_forward_hook(after)

    def _value(self, tensor: Tensor) -> Value:
        known = self._known.get(id(tensor))
        # The id of a tensor that is gone may be that of a new one; the weak reference tells them apart.
        if known is not None and known[0]() is tensor:
            return known[1]
        return self._new_value(tensor)

    def _new_value(self, tensor: Tensor) -> Value:
        self._count += 1
        value = value_of(f"v{self._count}", tensor)
        self._known[id(tensor)] = (weakref.ref(tensor), value)
        return value


def _misfit(
    model: nn.Module,
    example: Tensor,
    active: list[tuple[str, nn.Module, tuple[tuple[int, ...], ...]]],
    error: BaseException,
) -> str:
    name, module, shapes = active[-1] if active else ("", model, (tuple(example.shape),))
    weight = getattr(module, "weight", None)
    held = f", weight {list(weight.shape)}" if isinstance(weight, Tensor) else ""
    where = f"layer {name!r} ({type(module).__name__}{held})" if name else f"the forward of {type(module).__name__}"
    given = " and ".join(str(list(shape)) for shape in shapes) or "no tensor"
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"input shape {list(example.shape)} does not fit the model: {where} was given {given}: {first_line}; "
        "give the N,C,H,W that the model expects"
    )
