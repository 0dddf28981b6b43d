"""How fast a layer, and the network, would run at the sparsity that it has now: read off the plan's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..kernels.errors import InputError
from ..planner.schema import LayerPlan, Plan

PATTERN = "unstructured"
"""Of guided sparsity learning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProjection:
    """Predicted times of one layer under one sparse kernel.

    Attributes
    ----------
    lower : float or None
        Sparsity from which the kernel beats the dense one; None where it never does.
    upper : float or None
        Sparsity beyond which more gains nothing.
    sparsities, times_s : tuple of float
        Points of the prediction, ascending in sparsity.
    """

    name: str
    kernel: str
    calls: int
    dense_s: float
    lower: float | None
    upper: float | None
    sparsities: tuple[float, ...] = ()
    times_s: tuple[float, ...] = ()

    def time_s(self, sparsity: float) -> float:
        """Of one call: the sparse kernel from its lower bound on, the dense one below."""
        if self.lower is None or sparsity < self.lower:
            return self.dense_s
        reached = sparsity if self.upper is None else min(sparsity, self.upper)
        return min(self.dense_s, float(np.interp(reached, self.sparsities, self.times_s)))

    def speedup(self, sparsity: float) -> float:
        return self.dense_s / self.time_s(sparsity)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkProjection:
    """Predicted time of the network; `fixed_s` is all that the guide does not touch."""

    layers: Mapping[str, LayerProjection]
    fixed_s: float
    target_s: float

    @property
    def dense_s(self) -> float:
        return self.time_s({})

    def time_s(self, sparsity: Mapping[str, float]) -> float:
        """Of one forward pass; layers that are not named are dense."""
        return self.fixed_s + sum(
            layer.calls * layer.time_s(sparsity.get(name, 0.0)) for name, layer in self.layers.items()
        )


def projection_of(plan: Plan) -> NetworkProjection:
    """The projection of every layer of a plan, and the time that its target asks for.

    Raises
    ------
    InputError
        If the plan asks for no speed, or no layer can gain by unstructured sparsity.
    """
    if any(width.kept < width.group.units for width in plan.widths):
        raise InputError("guided training keeps all channels, the plan narrows layers; plan with --no-shared-widths")
    dense_s = plan.totals.dense_time_s.median
    target = plan.target
    wanted = []
    if target.speedup is not None:
        wanted.append(dense_s / target.speedup)
    if target.latency_s is not None:
        wanted.append(target.latency_s)
    if target.throughput_per_s is not None:
        wanted.append(plan.input_shape[0] / target.throughput_per_s)
    if not wanted:
        raise InputError("guided training steers to a speed; plan with --target-speedup, -latency-ms or -throughput")
    layers = {layer.name: _project(layer) for layer in plan.layers}
    if all(layer.lower is None for layer in layers.values()):
        raise InputError(
            "guided training prunes single weights, and no layer of the plan gains by that; allow the pattern "
            "unstructured (--patterns) or train without --guide"
        )
    own_s = sum(layer.calls * layer.dense_s for layer in layers.values())
    return NetworkProjection(layers=layers, fixed_s=max(dense_s - own_s, 0.0), target_s=min(wanted))


def _project(layer: LayerPlan) -> LayerProjection:
    dense_s = layer.dense.time_s.median
    ways = {way: lower for way, lower in layer.break_even_sparsity.items() if way.startswith(f"{PATTERN} on ")}
    reachable = {way: lower for way, lower in ways.items() if lower is not None}
    if not reachable:
        return LayerProjection(
            name=layer.name, kernel=layer.dense.kernel, calls=layer.calls, dense_s=dense_s, lower=None, upper=None
        )
    way = layer.chosen.way if layer.chosen.way in reachable else min(reachable, key=reachable.__getitem__)
    lower = reachable[way]
    points = {lower: dense_s}
    for candidate in (*layer.considered, layer.chosen):
        if candidate.way == way and candidate.sparsity > lower:
            points[candidate.sparsity] = candidate.time_s.median
    known = sorted(points.items())
    if len(known) == 1:
        # Only the break-even point is known: work in proportion to what is left.
        known.append((1.0, 0.0))
    return LayerProjection(
        name=layer.name,
        calls=layer.calls,
        dense_s=dense_s,
        kernel=way.partition(" on ")[2],
        lower=lower,
        upper=layer.useful_sparsity.get(way),
        sparsities=tuple(sparsity for sparsity, _ in known),
        times_s=tuple(time_s for _, time_s in known),
    )


def guided_plan(plan: Plan, projection: NetworkProjection, sparsity: Mapping[str, float]) -> Plan:
    """The plan with the sparsities that guided training ended at; layers it left or made dense again are dense."""
    layers = tuple(_guided_layer(layer, projection.layers[layer.name], sparsity) for layer in plan.layers)
    planned_s = projection.time_s(sparsity)
    before = plan.totals.planned_time_s
    scale = planned_s / before.median if before.median > 0 else 1.0
    scaled = before.model_copy(update={"median": planned_s, "low": before.low * scale, "high": before.high * scale})
    return plan.model_copy(
        update={"layers": layers, "totals": plan.totals.model_copy(update={"planned_time_s": scaled})}
    )


def _guided_layer(layer: LayerPlan, projected: LayerProjection, sparsity: Mapping[str, float]) -> LayerPlan:
    reached = sparsity.get(layer.name, 0.0)
    if projected.lower is None or reached < projected.lower:
        return layer.model_copy(
            update={
                "chosen": layer.dense,
                "problem": layer.full_problem.as_dense(),
                "reason": "kept dense by the guide of training: its sparsity would not have paid",
            }
        )
    time_s = projected.time_s(reached)
    like = layer.chosen if layer.chosen.way == f"{PATTERN} on {projected.kernel}" else layer.dense
    chosen = like.model_copy(
        update={
            "pattern": PATTERN,
            "sparsity": reached,
            "kernel": projected.kernel,
            "dtype": "float32",
            "time_s": like.time_s.model_copy(update={"median": time_s, "low": time_s, "high": time_s}),
        }
    )
    return layer.model_copy(
        update={
            "chosen": chosen,
            "problem": layer.full_problem.with_sparsity(PATTERN, reached),
            "reason": f"{100 * reached:.1f} % zeros, as guided training found them",
        }
    )
