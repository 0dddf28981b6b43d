"""One forward pass as a list of operations, the same form whichever way it was recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor between operations; `key` tells tensors of one trace apart."""

    key: str
    shape: tuple[int, ...]
    item_bytes: int

    @property
    def bytes_moved(self) -> float:
        """Of reading or writing it once."""
        return float(math.prod(self.shape) * self.item_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedOperation:
    """One operation of a forward pass.

    Attributes
    ----------
    operation : str
        Name in lower case without underscores: "conv2d", "batchnorm2d", "relu", "add".
    module : str
        Dotted name of the innermost module that ran it; "" for the model itself.
    inputs, outputs : tuple of Value
        Activations only; weights are left out.
    weight_bytes : float
        Of parameters with two or more axes that it reads.
    window : int
        Pooling: values of the input behind each value of the output; 1 where there is no fixed number.
    """

    operation: str
    module: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    weight_bytes: float = 0.0
    window: int = 1


Trace = tuple[TracedOperation, ...]


def canonical_name(name: str) -> str:
    """The one spelling for ``BatchNorm2d``, ``batch_norm`` and ``relu_``: lower case, no underscores."""
    return name.lower().replace("_", "")


def module_operation(module: nn.Module) -> str:
    """Name of what a module computes; subclasses of Conv1d, Conv2d and Linear count as these."""
    for kind, name in ((nn.Conv1d, "conv1d"), (nn.Conv2d, "conv2d"), (nn.Linear, "linear")):
        if isinstance(module, kind):
            return name
    return canonical_name(type(module).__name__)


def value_of(key: str, tensor: Tensor) -> Value:
    return Value(key=key, shape=tuple(tensor.shape), item_bytes=tensor.element_size())


def module_names(model: nn.Module) -> dict[str, str]:
    """From every path of a module to its first one: modules used in several places have several paths."""
    first = {id(module): name for name, module in model.named_modules()}
    return {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)}


def weight_bytes(parameters: Iterable[Tensor]) -> float:
    """Bytes of those parameters that are matrices or larger; scales and biases do not count."""
    return float(sum(p.numel() * p.element_size() for p in parameters if p.dim() >= 2))


POOLING = frozenset(f"{kind}pool{axes}d" for kind in ("avg", "max") for axes in (1, 2, 3)) | {"maxpool2dwithindices"}


def pooling_window(operation: str, kernel_size: Any) -> int:
    """Values in a window of `kernel_size` along each of the axes that the operation is named after; 1 if no pooling."""
    if operation not in POOLING:
        return 1
    if isinstance(kernel_size, int):
        return int(kernel_size ** int(operation.partition("pool")[2][0]))
    return math.prod(kernel_size)
