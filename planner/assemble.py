"""From decisions to the document: layers with their reasons and limits, and the totals."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..kernels.problem import Problem
from ..perfmodel.break_even import break_even_sparsity, useful_sparsity
from ..perfmodel.predict import PerformanceModel
from .candidates import LayerCandidates, Option
from .network_time import Network, Picked, total_time
from .options import NO_KERNEL, REMOVAL
from .reasons import why_chosen, why_dense, why_width
from .schema import Candidate, LayerPlan, Totals, WidthLevel, WidthPlan
from .stored_bytes import float32_bytes
from .targets import Decision, Question, model_file_bytes

MOST_CONSIDERED = 12
LEAST_TIME_S = 1e-9
"""Of a removed layer, where times are divided."""


class LayerWriter:
    """Writes layers; sparsity limits are computed once for layers of the same shape."""

    def __init__(self, model: PerformanceModel) -> None:
        self._model = model
        self._limits: dict[tuple[Problem, str, float], tuple[float | None, float | None]] = {}

    def layer_plan(self, layer: LayerCandidates, picked: Option) -> LayerPlan:
        """The decision for one layer, with what it was chosen over."""
        chosen, dense = picked.candidate, layer.dense.candidate
        full = layer.dense.timed.state
        # At other widths there are the same ways again; what the width itself costs and brings, its group says.
        rivals = [
            option
            for option in (*layer.options, *layer.losers)
            if option is not picked and option.timed.state == picked.timed.state
        ]
        considered = tuple(option.candidate for option in _nearest(rivals, chosen))
        break_even: dict[str, float | None] = {}
        useful: dict[str, float | None] = {}
        for option in _one_a_way(picked, rivals):
            way = option.candidate.way
            break_even[way], useful[way] = self._limits_of(option, layer.dense)
        if chosen.kernel == NO_KERNEL:
            reason = "removed: its whole residual branch goes"
        elif chosen.pattern == "dense" and picked.timed.state != full:
            widths = f"{_widths(picked.timed.state)} channels instead of {_widths(full)}"
            reason = f"dense at {widths}: {why_chosen(chosen, dense)}"
        elif chosen.other_dense:
            reason = f"{why_chosen(chosen, dense)}, nothing removed; torch would run {dense.kernel}"
        elif chosen.pattern == "dense":
            sparse = tuple(candidate for candidate in considered if candidate.pattern != "dense")
            faster = [each for each in layer.options[1:] if each.timed.state == full and not each.timed.other_dense]
            reason = why_dense(chosen, sparse, break_even, has_faster=bool(faster))
        else:
            reason = why_chosen(chosen, dense)
        return LayerPlan(
            name=layer.layer.name,
            full_problem=layer.layer.problem,
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
        rest_time_s=network.rest.full_s,
        loss_increase=network.loss(decision.picked),
        best_reachable_speedup=decision.best_reachable_speedup,
        dense_bytes=question.other_bytes + sum(float32_bytes(layer.layer.problem) for layer in network.layers),
        planned_bytes=model_file_bytes(question, decision.picked),
    )


def width_plans(network: Network, picked: Picked) -> tuple[WidthPlan, ...]:
    """The decision for each width group."""
    return tuple(
        WidthPlan(
            group=each.group,
            kept=kept,
            loss_increase=losses[each.levels.index(kept)],
            considered=tuple(
                WidthLevel(kept=level, loss_increase=loss) for level, loss in zip(each.levels, losses, strict=True)
            ),
            reason=why_width(each.group, kept, losses[each.levels.index(kept)]),
        )
        for each, kept, losses in zip(network.widths.groups, picked.kept, network.width_loss, strict=True)
    )


def _widths(state: tuple[int, int]) -> str:
    return f"{state[0]}x{state[1]}"


def _one_a_way(picked: Option, rivals: list[Option]) -> Iterator[Option]:
    """Of each sparse pattern and kernel the option that says most of it: the choice, else its fastest."""
    seen: set[str] = set()
    for option in (picked, *sorted(rivals, key=lambda rival: rival.candidate.time_s.median)):
        if option.candidate.pattern not in ("dense", REMOVAL) and option.candidate.way not in seen:
            seen.add(option.candidate.way)
            yield option


def _nearest(rivals: list[Option], chosen: Candidate) -> list[Option]:
    """The losers closest to the choice in time and loss, the closest of each pattern before all others."""

    def distance(option: Option) -> float:
        slowdown = max(option.candidate.time_s.high, LEAST_TIME_S) / max(chosen.time_s.high, LEAST_TIME_S)
        return abs(math.log(slowdown)) + abs(option.candidate.loss_increase - chosen.loss_increase) / max(
            option.candidate.loss_increase, chosen.loss_increase, 1e-12
        )

    ordered = sorted(rivals, key=distance)
    first = list({option.candidate.pattern: option for option in reversed(ordered)}.values())
    others = [option for option in ordered if option not in first]
    return sorted([*sorted(first, key=distance), *others][:MOST_CONSIDERED], key=distance)
