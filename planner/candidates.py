"""Candidates: ways to run a layer with both their time and their loss, and those among them worth choosing from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..kernels.pattern import parse_pattern
from .ablation import WeightChoice
from .capture import CapturedLayer
from .options import NO_KERNEL, LayerOptions, TimedOption
from .schema import Candidate
from .sensitivity import Sensitivity
from .widths import State

LEAST_GAIN_FRAC = 0.002
"""More loss must buy at least this share of the time; smaller steps are far below what predictions can tell apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A candidate with what else the plan says of it."""

    candidate: Candidate
    timed: TimedOption


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCandidates:
    """What the solver chooses from in one layer.

    Attributes
    ----------
    options : tuple of Option
        Best dense first; then those for which no other at the same widths has both less loss and less time.
    losers : tuple of Option
        Dominated or slower than dense, one of the slower a pattern.
    """

    layer: CapturedLayer
    options: tuple[Option, ...]
    losers: tuple[Option, ...]

    @property
    def dense(self) -> Option:
        return self.options[0]


def wanted_choices(layers: Sequence[LayerOptions]) -> tuple[WeightChoice, ...]:
    """Whose loss is to be estimated: the faster ones, and of each pattern the least slow one, to show why it lost."""
    return tuple(
        sorted(
            {
                _choice(each, option)
                for each in layers
                for option in (*each.faster, *_least_slow(each))
                if not parse_pattern(option.problem.pattern).is_dense
            }
        )
    )


def join_loss(layers: Sequence[LayerOptions], sensitivity: Sensitivity) -> tuple[LayerCandidates, ...]:
    """Put losses to times, and prune what is dominated."""
    return tuple(_layer_candidates(each, sensitivity) for each in layers)


def _layer_candidates(each: LayerOptions, sensitivity: Sensitivity) -> LayerCandidates:
    states: dict[State, list[Option]] = {}
    for timed in (each.dense, *each.narrower, *each.faster):
        states.setdefault(timed.state, []).append(_with_loss(each, timed, sensitivity))
    kept: list[Option] = []
    dominated: list[Option] = []
    for options in states.values():
        # By loss, then time: whatever is not faster than everything before it is dominated.
        limit_s = options[0].candidate.time_s.high
        kept.append(options[0])
        for option in sorted(
            options[1:], key=lambda found: (found.candidate.loss_increase, found.candidate.time_s.high)
        ):
            if option.candidate.time_s.high < (1.0 - LEAST_GAIN_FRAC) * limit_s:
                limit_s = option.candidate.time_s.high
                kept.append(option)
            else:
                dominated.append(option)
    slow = [_with_loss(each, option, sensitivity) for option in _least_slow(each)]
    return LayerCandidates(layer=each.layer, options=tuple(kept), losers=(*dominated, *slow))


def _least_slow(each: LayerOptions) -> Iterator[TimedOption]:
    by_pattern: dict[str, TimedOption] = {}
    for option in each.slower:
        rival = by_pattern.get(option.problem.pattern)
        if rival is None or option.time_s.high < rival.time_s.high:
            by_pattern[option.problem.pattern] = option
    yield from by_pattern.values()


def _choice(each: LayerOptions, option: TimedOption) -> WeightChoice:
    return WeightChoice(layer=each.layer.name, pattern=option.problem.pattern, sparsity=option.problem.sparsity)


def _with_loss(each: LayerOptions, option: TimedOption, sensitivity: Sensitivity) -> Option:
    problem = option.problem
    removed = option.kernel == NO_KERNEL
    # What goes with its branch is counted with the width that is 0 there.
    loss = 0.0 if removed or parse_pattern(problem.pattern).is_dense else sensitivity.loss[_choice(each, option)]
    if problem.dtype != "float32" and not removed:
        rounding = sensitivity.rounding_int8 if problem.dtype == "int8" else sensitivity.rounding
        loss += rounding[each.layer.name]
    return Option(
        candidate=Candidate(
            pattern=problem.pattern,
            sparsity=problem.sparsity,
            kernel=option.kernel,
            dtype=problem.dtype,
            time_s=option.time_s,
            loss_increase=loss,
            extrapolated=option.extrapolated,
            other_dense=option.other_dense,
        ),
        timed=option,
    )
