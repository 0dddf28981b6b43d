"""What a forward pass does between the planned layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..kernels.problem import Problem
from .origins import bytes_by_layer, channel_origins
from .trace import POOLING, Trace, TracedOperation

_PLANNED = frozenset({"conv1d", "conv2d", "linear"})
_BATCH_NORM = frozenset({"batchnorm", "batchnorm1d", "batchnorm2d"})
_FUSED_ACTIVATION = frozenset({"relu"})
"""Kernels take a ReLU with the layer before it; other activations run on their own."""
_TRANSPARENT = frozenset({"alias", "detach", "dropout", "dropout1d", "dropout2d", "featuredropout", "identity"})
"""Nothing at all at inference."""
_FREE = _TRANSPARENT | frozenset(
    {
        *("chunk", "expand", "flatten", "getitem", "movedim", "narrow", "permute", "reshape", "select", "slice"),
        *("split", "splitwithsizes", "squeeze", "swapaxes", "t", "transpose", "unbind", "unflatten", "unsqueeze"),
        *("view", "viewas", "dim", "getattr", "output", "size", "symsize"),
    }
)
"""Views: they change how memory is read and move nothing."""
_PROFILED = {
    "batchnorm": "batch_norm",
    "batchnorm1d": "batch_norm",
    "batchnorm2d": "batch_norm",
    "iadd": "add",
    "maxpool2d": "max_pool",
    "maxpool2dwithindices": "max_pool",
}
"""Names under which machine profiles measure these operations; others keep their own."""
ATTENTION = frozenset({"scaleddotproductattention"})
_PRODUCTS = frozenset({"bmm", "linear", "matmul", "mm"})
"""Matrix products outside the layers: of two activations, or with a weight that no kernel can take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestOperation:
    """An operation between the layers and the bytes that it reads and writes.

    Attributes
    ----------
    by_layer : tuple
        (layer, the part of the bytes that grows with its output width).
    products : tuple of Problem
        Of an operation that multiplies matrices: linear layers of as much work, dense, float32, one thread. They take
        its time, not the bytes.
    """

    operation: str
    bytes_moved: float
    by_layer: tuple[tuple[str, float], ...] = ()
    products: tuple[Problem, ...] = ()


def rest_operations(trace: Trace, planned: frozenset[str]) -> tuple[RestOperation, ...]:
    """What lies between the planned layers.

    A batch norm directly behind a layer folds into its weights, and a ReLU directly behind either runs inside the
    layer's kernel: both are free where nothing else reads the value between. Pooling reads its input once for each
    window that a value lies in. Attention is two products and a softmax over the scores.
    """
    origins = channel_origins(trace, planned)
    readers = Counter(value.key for operation in trace for value in operation.inputs)
    layer_outputs: set[str] = set()
    normed_outputs: set[str] = set()
    rest = []
    for operation in trace:
        keys = {value.key for value in operation.outputs}
        source = operation.inputs[0].key if operation.inputs else ""
        fuses = readers[source] == 1
        if operation.module in planned and operation.operation in _PLANNED:
            layer_outputs |= keys
        elif operation.operation in _BATCH_NORM and fuses and source in layer_outputs:
            normed_outputs |= keys
        elif operation.operation in _FUSED_ACTIVATION and fuses and source in layer_outputs | normed_outputs:
            continue
        elif operation.operation in _TRANSPARENT and fuses:
            layer_outputs |= keys if source in layer_outputs else set()
            normed_outputs |= keys if source in normed_outputs else set()
        elif operation.operation not in _FREE:
            values = (*operation.inputs, *operation.outputs)
            products = tuple(_products(operation))
            rest.append(
                RestOperation(
                    operation=_PROFILED.get(operation.operation, operation.operation),
                    bytes_moved=_bytes_moved(operation),
                    by_layer=bytes_by_layer(values, origins),
                    products=products,
                )
            )
            if operation.operation in ATTENTION and products:
                rest.append(RestOperation(operation="softmax", bytes_moved=2.0 * products[0].output_bytes))
    return tuple(rest)


def _bytes_moved(operation: TracedOperation) -> float:
    written = sum(value.bytes_moved for value in operation.outputs)
    if operation.operation in POOLING and operation.window > 1:
        return (operation.window + 1) * written
    return sum(value.bytes_moved for value in operation.inputs) + written + operation.weight_bytes


def _products(operation: TracedOperation) -> Iterator[Problem]:
    """Linear layers of the work of an operation, all matrices of a batch in one."""
    shapes = [value.shape for value in operation.inputs]
    if operation.operation in ATTENTION and len(shapes) >= 3:
        query, key, value = shapes[:3]
        yield _product(query[:-1], query[-1], key[-2])
        yield _product(query[:-1], key[-2], value[-1])
    elif operation.operation in _PRODUCTS and shapes and operation.outputs:
        result = operation.outputs[0].shape
        if len(shapes[0]) >= 2 and len(result) >= 2:
            yield _product(result[:-1], shapes[0][-1], result[-1])


def _product(rows: tuple[int, ...], inner: int, columns: int) -> Problem:
    return Problem(op="linear", n=math.prod(rows), c_in=inner, c_out=columns)
