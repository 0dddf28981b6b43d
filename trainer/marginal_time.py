"""What the machine gains from one more group of zeros, which is what a penalty on the group is weighed by."""

from __future__ import annotations

from ..kernels.groups import grid_shape
from ..kernels.pattern import BlockPart, parse_pattern
from ..planner.schema import LayerPlan, Plan


def time_fracs(plan: Plan) -> dict[str, float]:
    """By layer with a block pattern: predicted time saved per group that goes, relative to the mean over those layers.

    Layers whose pattern is expected to save nothing are left out.
    """
    saved_s = {layer.name: time_per_group_s(layer) for layer in plan.layers}
    known = {name: time_s for name, time_s in saved_s.items() if time_s is not None and time_s > 0.0}
    mean_s = sum(known.values()) / max(len(known), 1)
    return {name: time_s / mean_s for name, time_s in known.items()}


def time_per_group_s(layer: LayerPlan) -> float | None:
    """Marginal time of a group: what the plan's choice saves against dense, over the groups that it takes away.

    None for patterns without blocks, or without zeros.
    """
    pattern = parse_pattern(layer.chosen.pattern)
    groups = 0.0
    for part in pattern.parts:
        if not isinstance(part, BlockPart):
            return None
        k, c, r, s = grid_shape(layer.full_problem.weight_shape, part)
        groups += k * c * r * s
    removed = layer.chosen.sparsity * groups
    saved_s = layer.calls * (layer.dense.time_s.median - layer.chosen.time_s.median)
    return saved_s / removed if removed > 0.0 else None
