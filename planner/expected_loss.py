"""The losses that a plan is made from: estimated, measured, searched, and kept so that planning again takes seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from torch import nn

from ..kernels.progress import Progress
from .ablation import PrunedWeight, WeightChoice
from .calibration import Calibration
from .focus import focus_choices, questions_near
from .pruned_layers import PrunedLayers, prune_layers
from .pruned_store import PrunedStore
from .schema import ChoiceLoss, StoredSensitivity, WidthLoss
from .sensitivity import Sensitivity, WidthChoice, estimate_sensitivity
from .stitch import LEAST_RISE, search_stitched
from .targets import Question, solve_question
from .width_loss import width_losses
from .widths import GroupLevels

SEARCH_BUDGET_S = 60.0
WIDTH_SHARE = 0.5
"""Of the time for measuring losses, at most for those of widths, where there are others to measure."""

Ask = Callable[[Sensitivity], Question]
"""The solver's question under some losses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """From what, and how thoroughly, losses are found; the attributes are those of `PlanRequest`."""

    calibration: Calibration | None
    sensitivity_budget_s: float
    pruned_layers: Path | None
    search_budget_s: float


def expected_losses(
    model: nn.Module,
    choices: Sequence[WeightChoice],
    *,
    layers: Sequence[str],
    widths: Sequence[GroupLevels],
    ask: Ask,
    effort: Effort,
    progress: Progress,
) -> tuple[Sensitivity, PrunedWeight | None]:
    """The loss of every choice and width, and the refitted weights that they were measured with, if any were.

    Without a database: weights by magnitude, estimates and ablations. With one: weights refitted after removal, the
    same, then a search on the stitched network for the targets at hand; all is kept in the database, and where it
    holds the losses of all choices and widths, nothing is measured again, whatever the target.
    """
    if effort.pruned_layers is None or effort.calibration is None or not choices:
        return _estimated(model, choices, layers, widths, None, ask, effort, progress), None
    store = PrunedStore(effort.pruned_layers)
    pruned = prune_layers(model, choices, calibration=effort.calibration, store=store, progress=progress)
    stored = store.load_sensitivity()
    if stored is not None:
        found = _from_stored(stored)
        if (
            found.loss.keys() >= {*choices}
            and found.rounding.keys() >= {*layers}
            and found.widths.keys() >= {*_width_choices(widths)}
        ):
            return found, pruned.weight
    found = _estimated(model, choices, layers, widths, pruned, ask, effort, progress)
    questions = questions_near(ask(found))
    search = search_stitched(
        model,
        questions,
        refitted=pruned.weight,
        calibration=effort.calibration,
        budget_s=effort.search_budget_s,
        progress=progress,
    )
    if search is not None:
        found = found.scaled(search.scale)
        # One factor for all, so that the plan's expected loss is the one that the stitched network has.
        expected = sum(solve_question(ask(found).like(question)).objective or 0.0 for question in questions)
        reached = sum(max(loss, LEAST_RISE) for loss in search.loss)
        if expected > 0.0:
            found = found.scaled(dict.fromkeys(search.scale, reached / expected))
    store.save_sensitivity(_to_stored(found))
    return found, pruned.weight


def _estimated(
    model: nn.Module,
    choices: Sequence[WeightChoice],
    layers: Sequence[str],
    widths: Sequence[GroupLevels],
    pruned: PrunedLayers | None,
    ask: Ask,
    effort: Effort,
    progress: Progress,
) -> Sensitivity:
    """By estimates and ablations: of widths first, then of choices, for which widths are known already."""
    start = time.perf_counter()
    by_width = width_losses(
        model,
        widths,
        calibration=effort.calibration,
        budget_s=(WIDTH_SHARE if choices else 1.0) * effort.sensitivity_budget_s,
        progress=progress,
    )
    spent_s = time.perf_counter() - start
    of_widths = dict(zip(_width_choices(widths), chain.from_iterable(by_width), strict=True))
    found = estimate_sensitivity(
        model,
        choices,
        layers=layers,
        calibration=effort.calibration,
        pruned=pruned,
        focus=lambda found: focus_choices(ask(replace(found, widths=of_widths))),
        budget_s=max(effort.sensitivity_budget_s - spent_s, 0.0) if choices else 0.0,
        progress=progress,
    )
    return replace(found, widths=of_widths)


def _width_choices(widths: Sequence[GroupLevels]) -> list[WidthChoice]:
    """By group and level, in the order of `width_losses`."""
    return [WidthChoice(group=each.group.name, kept=level) for each in widths for level in each.levels]


def _choice(stored: ChoiceLoss) -> WeightChoice:
    return WeightChoice(layer=stored.layer, pattern=stored.pattern, sparsity=stored.sparsity)


def _from_stored(stored: StoredSensitivity) -> Sensitivity:
    return Sensitivity(
        source="calibration",
        loss={_choice(each): each.loss for each in stored.choices},
        rounding=stored.rounding,
        measured={_choice(each): each.measured for each in stored.choices if each.measured is not None},
        widths={WidthChoice(group=each.group, kept=each.kept): each.loss for each in stored.widths},
        scale=stored.scale,
    )


def _to_stored(found: Sensitivity) -> StoredSensitivity:
    return StoredSensitivity(
        choices=tuple(
            ChoiceLoss(
                layer=choice.layer,
                pattern=choice.pattern,
                sparsity=choice.sparsity,
                loss=loss,
                measured=found.measured.get(choice),
            )
            for choice, loss in sorted(found.loss.items())
        ),
        rounding=dict(found.rounding),
        scale=dict(found.scale),
        widths=tuple(
            WidthLoss(group=choice.group, kept=choice.kept, loss=loss) for choice, loss in sorted(found.widths.items())
        ),
    )
