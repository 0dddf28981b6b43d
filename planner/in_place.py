"""Let an operation of a traced network leave its input alone, where others have come to read that too."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

_PLAIN: dict[object, object] = {torch.relu_: torch.relu, operator.iadd: operator.add}


def stop_in_place(network: fx.GraphModule, node: fx.Node) -> None:
    """Make a module, method or function that writes into its input give a new tensor; others are left as they are."""
    if node.op == "call_module":
        module: nn.Module = network.get_submodule(str(node.target))
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    elif node.op == "call_method" and str(node.target).endswith("_") and not str(node.target).endswith("__"):
        node.target = str(node.target)[:-1]
    elif node.op == "call_function" and node.target in _PLAIN:
        node.target = _PLAIN[node.target]  # type: ignore[assignment]
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
