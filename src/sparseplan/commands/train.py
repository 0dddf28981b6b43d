"""``sparseplan train``: train a model to a plan."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data_spec import load_data
from ..kernels.documents import sha256_of
from ..kernels.progress import Progress, silent
from ..model_spec import load_model
from ..planner.match import check_plan_fits
from ..planner.schema import Plan
from ..planner.store import load_plan, save_plan
from ..runtime.observe_outputs import observe_outputs
from ..trainer.assignment import assignment_of
from ..trainer.data import DataSplits, Split
from ..trainer.evaluate import evaluate
from ..trainer.guided import GuideOptions, guided_assignment
from ..trainer.int8_layers import int8_layers, observe_inputs
from ..trainer.loop import train as train_model
from ..trainer.low_rank import factorised, low_rank_layers
from ..trainer.planned_network import planned_network
from ..trainer.processes import started_processes
from ..trainer.projection import guided_plan, projection_of
from ..trainer.refitted import refitted_weights
from ..trainer.sas import uses_sas
from ..trainer.schema import GuideMethod, RunManifest, TrainingHistory, make_config
from ..trainer.store import RunFolder, load_weights, save_weights

DEFAULT_EPOCHS = 10
OBSERVED_IMAGES = 512
"""From which the ranges of what int8 layers take and give are read."""
TAUGHT_SHARE = 0.5
"""Share of the loss that follows the dense model, where there is a trained one."""


def train(
    plan: str | Path,
    model: str,
    *,
    data: str,
    run: str | Path,
    weights: str | Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    **recipe: Any,
) -> TrainingHistory:
    """Prune and fine-tune a model to a plan; everything goes into a run folder.

    A plan that was made with a database of pruned layers starts from its refitted weights, layers of low rank train as
    their factors, those in int8 with the rounding of their kernels. With ``guide`` single
    weights are pruned to the plan's target speed instead of to its sparsities, and the run folder's plan says where
    they ended.
    Started by ``torchrun``, all processes train one model.

    Parameters
    ----------
    plan : path
        Made by ``sparseplan plan``.
    model, data : str
        SPECs.
    run : path
        The run folder, made when missing.
    weights : path, optional
        Dense weights to start from (safetensors), which also teach the pruned model.
    resume : bool
        Go on after an interruption; needs the same plan and options.
    recipe
        Fields of `TrainConfig`: ``epochs`` (10; 0 prunes once and re-estimates the batch-norm statistics),
        ``learning_rate``, ``seed``, ...

    Raises
    ------
    InputError
        If the plan is for another model, the data do not fit, an option is unknown or out of its range, or the folder
        holds another run.
    Interrupted
        On Ctrl-C, after the last checkpoint is safe.
    """
    plan_path = Path(plan)
    decided = load_plan(plan_path)
    guide = _guide_of(decided, recipe.get("guide", "off"))
    assignment = assignment_of(decided) if guide is None else guided_assignment(guide.projection)
    low_rank = low_rank_layers(decided) if guide is None else {}
    taught = weights is not None and bool(assignment or low_rank or uses_sas(decided) or int8_layers(decided))
    config = make_config({"epochs": DEFAULT_EPOCHS, "distillation": TAUGHT_SHARE if taught else 0.0, **recipe})
    network = load_model(model, seed=config.seed)
    check_plan_fits(decided, network)
    if weights is not None:
        load_weights(network, Path(weights))
    splits = load_data(data, progress=progress)
    # Before anything is written: data that do not fit must not leave a run folder behind.
    evaluate(network, splits, _first_image(splits.validation), batch_size=1)
    refitted = refitted_weights(decided, network) if guide is None else {}
    student = network if guide is not None else factorised(planned_network(network, decided), low_rank)
    observe_inputs(student, _some_batches(splits, decided))
    folder = RunFolder(Path(run))
    manifest = RunManifest(
        created=datetime.now(UTC),
        model=model,
        data=data,
        dense_weights=None if weights is None else str(Path(weights).resolve()),
        plan_sha256=sha256_of(plan_path),
    )
    with started_processes() as processes:
        if processes.writes:
            folder.start(manifest, plan_path, profile=_profile_of(decided), resume=resume)
        processes.wait()
        history = train_model(
            student,
            splits,
            assignment,
            config=config,
            run_dir=folder.path,
            refitted=refitted,
            guide=guide,
            dense=None if student is network else network,
            resume=resume,
            processes=processes,
            progress=progress if processes.writes else silent,
        )
        if guide is None and int8_layers(decided) and processes.writes:
            observe_outputs(student, decided, _some_batches(splits, decided))
            save_weights(student, folder.planned_weights)
        if guide is not None and processes.writes:
            reached = {layer.name: _zero_frac(network, layer.name) for layer in assignment}
            save_plan(folder.plan, guided_plan(decided, guide.projection, reached))
    return history


def _guide_of(plan: Plan, method: GuideMethod) -> GuideOptions | None:
    return None if method == "off" else GuideOptions(projection=projection_of(plan), method=method)


def _zero_frac(model: nn.Module, layer: str) -> float:
    """Share of the weights of a layer that are exactly zero."""
    return float((model.get_submodule(layer).get_parameter("weight") == 0).double().mean())


def _some_batches(splits: DataSplits, plan: Plan) -> Iterator[Tensor]:
    """Normalised training images, the first ones, in batches of the plan's size."""
    size = plan.input_shape[0]
    for start in range(0, max(OBSERVED_IMAGES, size), size):
        yield splits.normalise(splits.train.images[torch.arange(start, start + size) % len(splits.train)])


def _first_image(split: Split) -> Split:
    return Split(images=split.images[:1], labels=split.labels[:1])


def _profile_of(plan: Plan) -> Path | None:
    """The profile the plan was made from, if it still lies where it was, unchanged."""
    path = Path(plan.profile_path)
    return path if path.is_file() and sha256_of(path) == plan.profile_sha256 else None
