"""Put kernels in the place of layers, with what lies around each that its kernel can take over."""

from __future__ import annotations

from collections.abc import Mapping

from ..kernels.problem import Problem
from ..kernels.spec import KernelSpec
from .carry_layouts import blocked_outputs
from .fuse import Fused, absorb_relu, absorb_residual, replace_module
from .swapped_layer import SwappedLayer


def swap_layers(fused: Fused, chosen: Mapping[str, tuple[Problem, KernelSpec]]) -> None:
    """Swap layers by name; ReLUs and residual additions go into kernels, blocked activations stay blocked between them.

    Parameters
    ----------
    fused : Fused
        Changed in place.
    chosen : mapping
        Problem, with pattern and dtype, and kernel of each layer.
    """
    relus = {}
    for name in chosen:
        # Kernels add before the ReLU, so a ReLU directly behind the layer keeps an addition behind it outside.
        relus[name] = absorb_relu(fused, name)
        if not relus[name] and absorb_residual(fused, name):
            relus[name] = absorb_relu(fused, name)
    blocked = blocked_outputs(fused, {name: kernel.layout for name, (_, kernel) in chosen.items()})
    for name, (problem, kernel) in chosen.items():
        module = fused.model.get_submodule(name)
        layer = SwappedLayer.of(module, problem, kernel, relu=relus[name], gives_blocked=name in blocked)
        replace_module(fused.model, name, layer)
