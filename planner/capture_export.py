"""Record a forward pass by torch.export: every operation, functional ones included."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.fx import Node

from .trace import (
    Trace,
    TracedOperation,
    Value,
    canonical_name,
    module_names,
    pooling_window,
    value_of,
    weight_bytes,
)


def trace_by_export(model: nn.Module, example: Tensor) -> Trace:
    """Record one forward pass of a model in eval mode.

    Raises
    ------
    RuntimeError, ValueError, TypeError, and others
        Whatever the tracer raises on code that it cannot follow.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes on torch's own internals, nothing a user could act on
        program = torch.export.export(model, (example,), strict=False)
    parameters = dict(program.named_parameters())
    names = module_names(model)
    signature = program.graph_signature
    constants = {*signature.inputs_to_parameters, *signature.inputs_to_buffers}
    operations = []
    for node in program.graph.nodes:
        if node.op not in ("call_function", "output"):
            continue
        weights = [
            parameters[signature.inputs_to_parameters[source.name]]
            for source in node.all_input_nodes
            if source.name in signature.inputs_to_parameters
        ]
        activations = [source for source in node.all_input_nodes if source.name not in constants]
        operation = "output" if node.op == "output" else canonical_name(_operation_name(node))
        operations.append(
            TracedOperation(
                operation=operation,
                module=names.get(_module_path(node), ""),
                inputs=tuple(value for source in activations for value in _values(source)),
                outputs=tuple(_values(node)) if node.op == "call_function" else (),
                weight_bytes=weight_bytes(weights),
                window=pooling_window(operation, node.args[1] if len(node.args) > 1 else 1),
            )
        )
    return tuple(operations)


def _operation_name(node: Node) -> str:
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return str(schema.name.split("::")[-1])
    return str(getattr(node.target, "__name__", node.target))


def _module_path(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    # A second call of the same module is written "path@1".
    return str(list(stack.values())[-1][0]).split("@")[0] if stack else ""


def _values(node: Node) -> Iterator[Value]:
    value = node.meta.get("val")
    tensors = value if isinstance(value, list | tuple) else [value]
    for number, tensor in enumerate(tensors):
        if isinstance(tensor, Tensor):
            yield value_of(f"{node.name}.{number}" if number else node.name, tensor)
