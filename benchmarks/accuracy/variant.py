"""One training of an experiment: a network, where it starts, what it is pruned to, by which recipe."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from sparseplan.trainer.assignment import Assignment
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.guided import GuideOptions
from sparseplan.trainer.loop import train
from sparseplan.trainer.schema import make_config
from sparseplan.trainer.store import RunFolder

from .count import count_work
from .options import ExperimentOptions
from .outcome import Outcome, load_outcomes, save_outcomes

Sizes = Callable[[nn.Module], dict[str, str]]
"""What is left of each layer of a trained network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How one row of a table comes about.

    Attributes
    ----------
    network : callable
        From a seed to the network that is trained, with the weights it starts from.
    assign : callable
        From that network to what it is pruned to.
    recipe : mapping
        Fields of `TrainConfig`, beside epochs and seed.
    """

    name: str
    network: Callable[[int], nn.Module]
    assign: Callable[[nn.Module], Assignment] = lambda _: ()
    recipe: Mapping[str, object] = field(default_factory=dict)
    guide: GuideOptions | None = None


def run_variants(
    experiment: str,
    variants: tuple[Variant, ...],
    data: DataSplits,
    *,
    options: ExperimentOptions,
    sizes: Sizes = lambda _: {},
    say: Callable[[str], None],
) -> str:
    """Train every variant with every seed, but for those whose result is there already; the table.

    Variants are trained in order, so that a later one may start from the weights of an earlier one (`weights_of`).
    """
    done = {(each.variant, each.seed): each for each in load_outcomes(options.out)}
    for seed in options.seeds:
        for variant in variants:
            if (variant.name, seed) not in done:
                outcome = _run(experiment, variant, data, seed=seed, options=options, sizes=sizes)
                done[variant.name, seed] = outcome
                say(save_outcomes(options.out, sorted(done.values(), key=_order(variants))))
    return save_outcomes(options.out, sorted(done.values(), key=_order(variants)))


def weights_of(variant: str, seed: int, options: ExperimentOptions) -> Path:
    """Where a finished training left its weights."""
    return _folder(variant, seed, options).planned_weights


def _order(variants: tuple[Variant, ...]) -> Callable[[Outcome], tuple[int, int]]:
    names = [variant.name for variant in variants]
    return lambda outcome: (names.index(outcome.variant) if outcome.variant in names else len(names), outcome.seed)


def _folder(variant: str, seed: int, options: ExperimentOptions) -> RunFolder:
    return RunFolder(options.out / f"{variant.replace(' ', '-')}-{seed}")


def _run(
    experiment: str,
    variant: Variant,
    data: DataSplits,
    *,
    seed: int,
    options: ExperimentOptions,
    sizes: Sizes,
) -> Outcome:
    torch.manual_seed(seed)
    network = variant.network(seed).to(options.device)
    config = make_config({"epochs": options.epochs, "seed": seed, **variant.recipe})
    folder = _folder(variant.name, seed, options)
    resume = folder.last_checkpoint.exists()
    history = train(
        network,
        data,
        variant.assign(network),
        config=config,
        run_dir=folder.path,
        guide=variant.guide,
        resume=resume,
        progress=options.progress,
    )
    # Runs are kept small: the result and what led to it, not the optimiser's state.
    shutil.rmtree(folder.checkpoints)
    folder.dense_weights.unlink()
    work = count_work(network, data.normalise(data.validation.images[:1]).to(options.device))
    return Outcome(
        experiment=experiment,
        variant=variant.name,
        seed=seed,
        epochs=config.epochs,
        train_images=len(data.train),
        validation_error_frac=1.0 - history.validation_accuracy_frac,
        test_error_frac=1.0 - history.test_accuracy_frac,
        multiply_adds=work.multiply_adds,
        parameters=work.parameters,
        weight_bytes=work.weight_bytes,
        train_s=history.duration_s,
        sizes=sizes(network),
    )
