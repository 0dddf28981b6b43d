"""The network that a plan trains and runs: with its layers under SAS and in int8 in the places of plain ones."""

from __future__ import annotations

from torch import nn

from ..planner.schema import Plan
from .int8_layers import int8_layers, with_int8
from .sas import network_of


def planned_network(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy with these layers converted, or the model itself where there are none."""
    return with_int8(network_of(model, plan), int8_layers(plan))
