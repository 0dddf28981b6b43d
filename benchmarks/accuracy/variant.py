"""One training of an experiment: a network, where it starts, what it is pruned to, by which recipe."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.planner.schema import Plan
from sparseplan.trainer.assignment import Assignment
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.guided import GuideOptions
from sparseplan.trainer.loop import train
from sparseplan.trainer.schema import make_config
from sparseplan.trainer.store import RunFolder, load_weights

from .count import count_work
from .measure import measure_network
from .measure_pruned import measure_pruned
from .options import ExperimentOptions
from .outcome import Outcome, load_outcomes, save_outcomes
from .plot import plot_results

MEASURED_BATCH = 64
"""Images of a batch that is timed, where no plan says how many."""
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
    plan : Plan or None
        The plan whose assignment it is: what is predicted of the network, and what is measured.
    """

    name: str
    network: Callable[[int], nn.Module]
    assign: Callable[[nn.Module], Assignment] = lambda _: ()
    recipe: Mapping[str, object] = field(default_factory=dict)
    guide: GuideOptions | None = None
    plan: Plan | None = None


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

    Raises
    ------
    InputError
        If the folder has results of another number of epochs or images, or a variant is asked for that is none.
    """
    wanted = _wanted(variants, options)
    done = {(each.variant, each.seed): each for each in load_outcomes(options.out)}
    _refuse_other_runs(done, wanted, data, options)
    for seed in options.seeds:
        for variant in wanted:
            if (variant.name, seed) not in done:
                outcome = _run(experiment, variant, data, seed=seed, options=options, sizes=sizes)
                done[variant.name, seed] = outcome
                say(save_outcomes(options.out, sorted(done.values(), key=_order(variants))))
                _keep_small(_folder(variant.name, seed, options))
    for variant in wanted if options.measure else ():
        _measure(variant, done, data, options)
    outcomes = sorted(done.values(), key=_order(variants))
    plot_results(options.out, outcomes, folder_of=lambda name, seed: _folder(name, seed, options))
    return save_outcomes(options.out, outcomes)


def weights_of(variant: str, seed: int, options: ExperimentOptions) -> Path:
    """Where a finished training left its weights."""
    return _folder(variant, seed, options).planned_weights


def _wanted(variants: tuple[Variant, ...], options: ExperimentOptions) -> list[Variant]:
    refuse_unknown(options.only, [variant.name for variant in variants])
    return [variant for variant in variants if not options.only or variant.name in options.only]


def refuse_unknown(only: Sequence[str], names: Sequence[str]) -> None:
    """Check what ``--only`` names.

    Raises
    ------
    InputError
        If a name is none of the experiment's variants.
    """
    for name in only:
        if name not in names:
            raise InputError(f"--only {name!r}: the variants of this experiment are {', '.join(names)}")


def _refuse_other_runs(
    done: Mapping[tuple[str, int], Outcome], wanted: list[Variant], data: DataSplits, options: ExperimentOptions
) -> None:
    """Results of shorter trainings, or of fewer images, must not stand for those that are asked for."""
    for variant in wanted:
        epochs = make_config({"epochs": options.epochs, **variant.recipe}).epochs
        for seed in options.seeds:
            known = done.get((variant.name, seed))
            if known is not None and (known.epochs, known.train_images) != (epochs, len(data.train)):
                raise InputError(
                    f"{options.out} has {variant.name!r} after {known.epochs} epochs of {known.train_images} images, "
                    f"not {epochs} of {len(data.train)}; give the same --epochs and --subset, or another --out"
                )


def _order(variants: tuple[Variant, ...]) -> Callable[[Outcome], tuple[int, int]]:
    names = [variant.name for variant in variants]
    return lambda outcome: (names.index(outcome.variant) if outcome.variant in names else len(names), outcome.seed)


def _folder(variant: str, seed: int, options: ExperimentOptions) -> RunFolder:
    return RunFolder(options.out / f"{variant.replace(' ', '-').replace(':', '-')}-{seed}")


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
    config = make_config(
        {"epochs": options.epochs, "seed": seed, "autocast_bfloat16": options.bfloat16, **variant.recipe}
    )
    folder = _folder(variant.name, seed, options)
    history = train(
        network,
        data,
        variant.assign(network),
        config=config,
        run_dir=folder.path,
        guide=variant.guide,
        resume=folder.last_checkpoint.exists(),
        progress=options.progress,
    )
    work = count_work(network, data.normalise(data.validation.images[:1]).to(options.device))
    totals = None if variant.plan is None else variant.plan.totals
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
        predicted_time_s=None if totals is None else totals.planned_time_s.median,
        predicted_dense_time_s=None if totals is None else totals.dense_time_s.median,
    )


def _keep_small(folder: RunFolder) -> None:
    """The result and what led to it stay, not the optimiser's state."""
    shutil.rmtree(folder.checkpoints)
    folder.dense_weights.unlink()


def _measure(
    variant: Variant, done: dict[tuple[str, int], Outcome], data: DataSplits, options: ExperimentOptions
) -> None:
    """Time the network of the first seed: where the zeros are differs between seeds, not how many there are."""
    seed = options.seeds[0]
    first = done.get((variant.name, seed))
    if first is None or first.time_s is not None:
        return
    weights = weights_of(variant.name, seed, options)
    found: dict[str, object] = {}
    if variant.plan is not None:
        found["time_s"], found["dense_time_s"] = measure_network(
            lambda: variant.network(seed), variant.plan, weights, data=data, progress=options.progress
        )
    elif assignment := variant.assign(variant.network(seed)):
        pruned = variant.network(seed)
        load_weights(pruned, weights)
        example = data.normalise(data.test.images[:MEASURED_BATCH])
        times = measure_pruned(variant.network(seed).eval(), pruned.eval(), assignment, example)
        found = {
            "time_s": times.time_s,
            "dense_time_s": times.dense_time_s,
            "layer_speedups": {name: dense_s / time_s for name, (dense_s, time_s) in times.layers.items()},
        }
    for key, outcome in done.items():
        if key[0] == variant.name:
            done[key] = outcome.model_copy(update=found)
    save_outcomes(options.out, list(done.values()))
