"""Which layer made the channels of each tensor between the layers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from .trace import Trace, TracedOperation, Value

_JOINING = frozenset({"cat", "concat", "concatenate"})

Shares = Mapping[str, float]
"""By layer: share of a tensor's channels that it made."""


def channel_origins(trace: Trace, planned: Collection[str]) -> dict[str, Shares]:
    """By key of a value: the planned layers that its channels come from; what comes from none of them is left out."""
    origins: dict[str, Shares] = {}
    for operation in trace:
        if operation.module in planned and operation.weight_bytes > 0.0:
            shares: Shares = {operation.module: 1.0}
        elif operation.operation in _JOINING:
            shares = _joined(operation, origins)
        else:
            known = [value for value in operation.inputs if origins.get(value.key)]
            widest = max(known, key=lambda value: math.prod(value.shape), default=None)
            shares = origins[widest.key] if widest is not None else {}
        origins.update((value.key, shares) for value in operation.outputs)
    return origins


def bytes_by_layer(values: Collection[Value], origins: Mapping[str, Shares]) -> tuple[tuple[str, float], ...]:
    """(layer, bytes of the values that grow with its output width)."""
    found: dict[str, float] = {}
    for value in values:
        for layer, share in origins.get(value.key, {}).items():
            found[layer] = found.get(layer, 0.0) + share * value.bytes_moved
    return tuple(found.items())


def _joined(operation: TracedOperation, origins: Mapping[str, Shares]) -> Shares:
    total = sum(math.prod(value.shape) for value in operation.inputs)
    shares: dict[str, float] = {}
    for value in operation.inputs:
        for layer, share in origins.get(value.key, {}).items():
            shares[layer] = shares.get(layer, 0.0) + share * math.prod(value.shape) / max(total, 1)
    return shares
