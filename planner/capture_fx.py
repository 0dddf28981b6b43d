"""Record a forward pass by torch.fx: for models that torch.export cannot take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from .trace import (
    Trace,
    TracedOperation,
    Value,
    canonical_name,
    module_names,
    module_operation,
    pooling_window,
    value_of,
    weight_bytes,
)


def trace_by_fx(model: nn.Module, example: Tensor) -> Trace:
    """Record one forward pass of a model in eval mode; modules of torch.nn count as one operation each.

    Raises
    ------
    RuntimeError, ValueError, TypeError, and others
        Whatever the tracer raises on code that it cannot follow.
    """
    graph_module = fx.symbolic_trace(model)
    with torch.no_grad():
        recorder = _ShapeRecorder(graph_module)
        recorder.run(example)
    names = module_names(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    operations = []
    for node in graph_module.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            continue
        module = modules[str(node.target)] if node.op == "call_module" else None
        constants = [source for source in node.all_input_nodes if source.op == "get_attr"]
        weights = (
            list(module.parameters())
            if module is not None
            else [p for source in constants for p in recorder.parameters.get(source.name, ())]
        )
        operation = _operation_name(node, module)
        operations.append(
            TracedOperation(
                operation=operation,
                module=names[str(node.target)] if module is not None else "",
                inputs=tuple(
                    value
                    for source in node.all_input_nodes
                    if source.op != "get_attr"
                    for value in recorder.values.get(source.name, ())
                ),
                outputs=recorder.values.get(node.name, ()) if node.op != "output" else (),
                weight_bytes=weight_bytes(weights),
                window=pooling_window(operation, _kernel_size(node, module)),
            )
        )
    return tuple(operations)


def _operation_name(node: fx.Node, module: nn.Module | None) -> str:
    if module is not None:
        return module_operation(module)
    if node.op == "call_function":
        return canonical_name(getattr(node.target, "__name__", str(node.target)))
    return canonical_name(str(node.target))


def _kernel_size(node: fx.Node, module: nn.Module | None) -> Any:
    if module is not None:
        return getattr(module, "kernel_size", 1)
    return node.kwargs.get("kernel_size", node.args[1] if len(node.args) > 1 else 1)


class _ShapeRecorder(fx.Interpreter):
    """Runs the graph and notes the shape of every tensor by the name of its node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, tuple[Value, ...]] = {}
        self.parameters: dict[str, tuple[Tensor, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "get_attr":
            self.parameters[n.name] = (result,) if isinstance(result, nn.Parameter) else ()
        self.values[n.name] = tuple(_values(n.name, result))
        return result


def _values(key: str, result: Any) -> Iterator[Value]:
    tensors = result if isinstance(result, list | tuple) else [result]
    for number, tensor in enumerate(tensors):
        if isinstance(tensor, Tensor):
            yield value_of(f"{key}.{number}" if number else key, tensor)
