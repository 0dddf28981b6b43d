"""From decisions to the document: layers with their reasons and limits, and the totals."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..kernels.problem import Problem
from ..perfmodel.break_even import break_even_sparsity, useful_sparsity
from ..perfmodel.predict import PerformanceModel
from .candidates import LayerCandidates, Option
from .network_time import total_time
from .reasons import why_chosen, why_dense
from .schema import Candidate, LayerPlan, Totals
from .stored_bytes import float32_bytes
from .targets import Decision, Question, model_file_bytes

MOST_CONSIDERED = 12


class LayerWriter:
    """Writes layers; sparsity limits are computed once for layers of the same shape."""

    def __init__(self, model: PerformanceModel) -> None:
        self._model = model
        self._limits: dict[tuple[Problem, str, float], tuple[float | None, float | None]] = {}

    def layer_plan(self, layer: LayerCandidates, picked: Option) -> LayerPlan:
        """The decision for one layer, with what it was chosen over."""
        chosen, dense = picked.candidate, layer.dense.candidate
        rivals = [option for option in (*layer.options, *layer.losers) if option is not picked]
        considered = tuple(option.candidate for option in _nearest(rivals, chosen))
        break_even: dict[str, float | None] = {}
        useful: dict[str, float | None] = {}
        for option in _one_a_way(picked, rivals):
            way = option.candidate.way
            break_even[way], useful[way] = self._limits_of(option, layer.dense)
        if chosen.pattern == "dense":
            sparse = tuple(candidate for candidate in considered if candidate.pattern != "dense")
            reason = why_dense(chosen, sparse, break_even, has_faster=len(layer.options) > 1)
        else:
            reason = why_chosen(chosen, dense)
        return LayerPlan(
            name=layer.layer.name,
            problem=picked.timed.problem,
            chosen=chosen,
            dense=dense,
            considered=considered,
            break_even_sparsity=break_even,
            useful_sparsity=useful,
            calls=layer.layer.calls,
            binding_resource=picked.timed.bound,
            reason=reason,
        )

    def _limits_of(self, option: Option, dense: Option) -> tuple[float | None, float | None]:
        problem, kernel = option.timed.problem.as_dense(), option.candidate.kernel
        # What conversions and the call cost, the kernel has to win back as well.
        rival_s = dense.candidate.time_s.median - option.timed.around_s
        pattern = option.candidate.pattern
        key = problem, option.candidate.way, rival_s
        if key not in self._limits:
            self._limits[key] = (
                break_even_sparsity(self._model, problem, pattern, kernel, rival_s),
                useful_sparsity(self._model, problem, pattern, kernel),
            )
        return self._limits[key]


def totals_of(question: Question, decision: Decision) -> Totals:
    """Times of the whole network, what lies between the layers included, and sizes."""
    network = question.network
    return Totals(
        dense_time_s=total_time(network, network.dense),
        planned_time_s=total_time(network, decision.picked),
        rest_time_s=network.rest_s,
        loss_increase=sum(option.candidate.loss_increase for option in decision.picked),
        best_reachable_speedup=decision.best_reachable_speedup,
        dense_bytes=question.other_bytes + sum(float32_bytes(layer.layer.problem) for layer in network.layers),
        planned_bytes=model_file_bytes(question, decision.picked),
    )


def _one_a_way(picked: Option, rivals: list[Option]) -> Iterator[Option]:
    """Of each sparse pattern and kernel the option that says most of it: the choice, else its fastest."""
    seen: set[str] = set()
    for option in (picked, *sorted(rivals, key=lambda rival: rival.candidate.time_s.median)):
        if option.candidate.pattern != "dense" and option.candidate.way not in seen:
            seen.add(option.candidate.way)
            yield option


def _nearest(rivals: list[Option], chosen: Candidate) -> list[Option]:
    """The losers closest to the choice in time and loss, the closest of each pattern before all others."""

    def distance(option: Option) -> float:
        return abs(math.log(option.candidate.time_s.high / chosen.time_s.high)) + abs(
            option.candidate.loss_increase - chosen.loss_increase
        ) / max(option.candidate.loss_increase, chosen.loss_increase, 1e-12)

    ordered = sorted(rivals, key=distance)
    first = list({option.candidate.pattern: option for option in reversed(ordered)}.values())
    others = [option for option in ordered if option not in first]
    return sorted([*sorted(first, key=distance), *others][:MOST_CONSIDERED], key=distance)
