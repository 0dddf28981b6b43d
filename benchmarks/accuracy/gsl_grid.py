"""The three numbers of element-wise sparsity learning in one grid, with a guide and without."""

from __future__ import annotations

import itertools
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from sparseplan.trainer.batches import steps_per_epoch
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.guided import GuideOptions, guided_assignment
from sparseplan.trainer.projection import NetworkProjection
from sparseplan.trainer.schedule import learning_rate_of, pruning_epochs
from sparseplan.trainer.schema import TrainConfig, make_config

from .gsl import LEARNING_RATE, dense_variant, projected, projection, trained, unguided
from .options import ExperimentOptions
from .outcome import Outcome, load_outcomes
from .variant import Variant, run_variants

EXPERIMENT = "convnet-gsl-grid"
PULLS = (0.02, 0.05, 0.1)
"""How far the penalty alone moves a weight until pruning ends, in the weights' own units: lambda times the learning
rates and the momentum's gain. So the grid means the same in a short run and a long one."""
THRESHOLDS = (3e-5, 1e-4)
FACTORS = (10.0, 100.0)
GRID = "grid.md"
_NAME = re.compile(r"(?P<way>guided|unguided) esl (?P<cell>.*)")


def convnet_gsl_grid(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ConvNet/CIFAR-10: lambda, threshold and factor of ESL in one grid, guided and not; needs a profile."""
    data = options.splits("cifar10:")
    dense = dense_variant(EXPERIMENT, data, options=options, say=say)
    bounds = projection(options)
    variants = (dense, *(_variant(options, data, bounds, *cell) for cell in _cells()))
    text = run_variants(EXPERIMENT, variants, data, options=options, sizes=partial(projected, bounds), say=say)
    (options.out / GRID).write_text(grid(load_outcomes(options.out)))
    return text + "\n" + (options.out / GRID).read_text()


def grid(outcomes: Sequence[Outcome]) -> str:
    """A row a cell of the grid: test error, zeros and projected speedup, with the guide and without."""
    found: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for each in outcomes:
        if named := _NAME.match(each.variant):
            found[named["cell"]][named["way"]].append(each)
    lines = [
        "| lambda (pull), threshold, factor | guided: error | projected | left | unguided: error | projected | left |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell, ways in found.items():
        lines.append(f"| {cell} | {_cell(ways['guided'])} | {_cell(ways['unguided'])} |")
    return "\n".join(lines) + "\n"


def strength_for(pull: float, config: TrainConfig, *, steps: int) -> float:
    """Lambda with which the penalty alone moves a weight so far in the pruning phase of so many steps an epoch."""
    rate = learning_rate_of(config, steps_per_epoch=steps)
    pruning = pruning_epochs(config.epochs, config.prune_frac) * steps
    return pull * (1.0 - config.momentum) / sum(rate(step) for step in range(pruning))


def _cells() -> Sequence[tuple[str, float, float, float]]:
    return list(itertools.product(("guided", "unguided"), PULLS, THRESHOLDS, FACTORS))


def _variant(
    options: ExperimentOptions,
    data: DataSplits,
    bounds: NetworkProjection,
    way: str,
    pull: float,
    threshold: float,
    factor: float,
) -> Variant:
    recipe = {"learning_rate": LEARNING_RATE, "distillation": 0.5, "guide": "esl"}
    config = make_config({"epochs": options.epochs, **recipe})
    strength = strength_for(pull, config, steps=steps_per_epoch(data, config.batch_size))
    followed = bounds if way == "guided" else unguided(bounds)
    assignment = guided_assignment(followed)
    return Variant(
        name=f"{way} esl {strength:.2g} ({pull:g}) {threshold:g} {factor:g}",
        network=partial(trained, options),
        assign=lambda _: assignment,
        recipe={**recipe, "esl_strength": strength, "esl_threshold": threshold, "esl_factor": factor},
        guide=GuideOptions(projection=followed, method="esl"),
    )


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return " | | "
    error = statistics.mean(100.0 * each.test_error_frac for each in outcomes)
    sizes = dict(outcomes[0].sizes)
    speedup = sizes.pop("projected")
    left = ", ".join(f"{name} {size}" for name, size in sizes.items()) or "dense"
    return f"{error:.2f} % | {speedup} | {left}"
