"""``sparseplan train``: train a model to a plan."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ..data_spec import load_data
from ..kernels.documents import sha256_of
from ..kernels.errors import InputError
from ..kernels.progress import Progress, silent
from ..model_spec import load_model
from ..planner.match import check_plan_fits
from ..planner.schema import Plan
from ..planner.store import load_plan
from ..trainer.assignment import assignment_of
from ..trainer.data import Split
from ..trainer.evaluate import evaluate
from ..trainer.loop import train as train_model
from ..trainer.schema import RunManifest, TrainConfig, TrainingHistory
from ..trainer.store import RunFolder, load_weights

DEFAULT_EPOCHS = 10
DEFAULT_LEARNING_RATE = 0.05


def train(
    plan: str | Path,
    model: str,
    *,
    data: str,
    run: str | Path,
    weights: str | Path | None = None,
    epochs: int = DEFAULT_EPOCHS,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    seed: int = 0,
    resume: bool = False,
    progress: Progress = silent,
) -> TrainingHistory:
    """Prune and fine-tune a model to a plan; everything goes into a run folder.

    Parameters
    ----------
    plan : path
        Made by ``sparseplan plan``.
    model, data : str
        SPECs.
    run : path
        The run folder, made when missing.
    weights : path, optional
        Dense weights to start from (safetensors).
    epochs : int
        0 applies the masks once and re-estimates the batch-norm statistics.
    learning_rate : float
        Peak of the cosine schedule.
    resume : bool
        Go on after an interruption; needs the same plan and options.

    Raises
    ------
    InputError
        If the plan is for another model, the data do not fit, or the folder holds another run.
    Interrupted
        On Ctrl-C, after the last checkpoint is safe.
    """
    if epochs < 0:
        raise InputError(f"--epochs {epochs}: allowed is 0 or more")
    plan_path = Path(plan)
    decided = load_plan(plan_path)
    network = load_model(model, seed=seed)
    check_plan_fits(decided, network)
    if weights is not None:
        load_weights(network, Path(weights))
    splits = load_data(data, progress=progress)
    # Before anything is written: data that do not fit must not leave a run folder behind.
    evaluate(network, splits, _first_image(splits.validation), batch_size=1)
    folder = RunFolder(Path(run))
    manifest = RunManifest(
        created=datetime.now(UTC),
        model=model,
        data=data,
        dense_weights=None if weights is None else str(Path(weights).resolve()),
        plan_sha256=sha256_of(plan_path),
    )
    folder.start(manifest, plan_path, profile=_profile_of(decided), resume=resume)
    config = TrainConfig(epochs=epochs, learning_rate=learning_rate, seed=seed)
    return train_model(
        network, splits, assignment_of(decided), config=config, run_dir=folder.path, resume=resume, progress=progress
    )


def _first_image(split: Split) -> Split:
    return Split(images=split.images[:1], labels=split.labels[:1])


def _profile_of(plan: Plan) -> Path | None:
    """The profile the plan was made from, if it still lies where it was, unchanged."""
    path = Path(plan.profile_path)
    return path if path.is_file() and sha256_of(path) == plan.profile_sha256 else None
