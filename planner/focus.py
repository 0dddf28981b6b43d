"""Where a measurement is worth most: at the choices of the plan, and at those that nearly took their place."""

from __future__ import annotations

from ..kernels.pattern import parse_pattern
from .ablation import WeightChoice
from .candidates import Option
from .network_time import knapsack_of, sure_speedup
from .options import NO_KERNEL
from .solve import fastest
from .targets import SEARCH_TIME_LIMIT_S, Question, solve_question

POWERS = (0.4, 0.8)
"""Of the best reachable speedup: where to look if the target does not say how fast, or is out of reach."""


def questions_near(question: Question) -> list[Question]:
    """The question itself where the solver can meet it; else some speedups that can be reached."""
    time_limit_s = SEARCH_TIME_LIMIT_S
    if question.target.given_time_or_size and solve_question(question, time_limit_s=time_limit_s).chosen is not None:
        return [question]
    network = question.network
    quick = fastest(knapsack_of(network, speedup=1.0)).chosen
    assert quick is not None
    best = max(sure_speedup(network, network.picked(quick)), 1.0)
    return [question.at_speedup(best**power) for power in POWERS]


def focus_choices(question: Question) -> list[WeightChoice]:
    """The plan's choices by falling loss, then their neighbours in each layer."""
    network = question.network
    chosen: dict[WeightChoice, float] = {}
    near: dict[WeightChoice, float] = {}
    for each in questions_near(question):
        answer = solve_question(each, time_limit_s=SEARCH_TIME_LIMIT_S)
        if answer.chosen is None:
            continue
        for layer, option in zip(network.layers, network.picked(answer.chosen).layers, strict=True):
            place = layer.options.index(option)
            _add(chosen, layer.layer.name, option)
            for neighbour in layer.options[max(place - 1, 0) : place + 2]:
                _add(near, layer.layer.name, neighbour)

    def falling(table: dict[WeightChoice, float]) -> list[WeightChoice]:
        return sorted(table, key=lambda choice: -table[choice])

    return list(dict.fromkeys([*falling(chosen), *falling(near)]))


def _add(table: dict[WeightChoice, float], name: str, option: Option) -> None:
    candidate = option.candidate
    if candidate.kernel != NO_KERNEL and not parse_pattern(candidate.pattern).is_dense:
        choice = WeightChoice(layer=name, pattern=candidate.pattern, sparsity=candidate.sparsity)
        table[choice] = candidate.loss_increase
