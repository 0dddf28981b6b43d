"""Training to a plan: prune gradually, fine-tune under fixed masks, keep the best, survive interruptions."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.progress import Progress, silent
from .assignment import Assignment, assignment_sha256
from .batch_norm import reestimate_batch_norm
from .data import DataSplits
from .distil import frozen_copy
from .errors import Interrupted
from .evaluate import device_of, evaluate
from .guided import GuidedRegulariser, GuideOptions
from .learner import Learner
from .low_rank import is_factorised, plain_state
from .processes import ALONE, Processes
from .schema import CheckpointState, DenseStart, EpochRecord, TrainConfig, TrainingHistory
from .shared_batch_norm import shared_batch_norm
from .store import RunFolder, load_weights, read_safetensors, save_weights, write_tensors
from .weights import refuse_non_finite


def train(
    model: nn.Module,
    data: DataSplits,
    assignment: Assignment,
    *,
    config: TrainConfig,
    run_dir: Path,
    refitted: Mapping[str, Tensor] | None = None,
    guide: GuideOptions | None = None,
    dense: nn.Module | None = None,
    resume: bool = False,
    processes: Processes = ALONE,
    progress: Progress = silent,
) -> TrainingHistory:
    """Train a model until it carries the zeros of an assignment; it ends with the weights of the best epoch.

    The first `config.prune_frac` of the epochs prune gradually, with the group lasso on structured patterns; the rest
    fine-tune with fixed masks. Without an assignment all epochs train the dense model. With 0 epochs the masks are
    applied once and the batch-norm statistics are measured anew. The best epoch of fine-tuning is chosen on the
    validation split; the test split serves the final figure, and once the dense start's.

    Data order, augmentation and dropout follow from (seed, epoch), so that a resumed run ends with the very weights of
    one that was never interrupted (same machine, same thread count).

    Parameters
    ----------
    model : nn.Module
        With the dense weights to start from; changed in place.
    run_dir : Path
        Run folder; takes weights (of factorised layers as one again), a checkpoint after every epoch, and the history.
    refitted : mapping, optional
        Pruned and refitted weights [K, C, R, S] of all layers of the assignment: training then starts from them, and
        all epochs fine-tune.
    guide : GuideOptions, optional
        Guided sparsity learning: prune to its target time; the assignment is then that of `guided_assignment`.
    dense : nn.Module, optional
        The dense network, where the model was made from it and is another one (SAS, low rank): it is kept, and teaches.
    resume : bool
        Go on from the last checkpoint, which must be of the same model, data, assignment and configuration.
    processes : Processes
        This one among those that train together: each computes its part of every batch, the first writes the files.

    Raises
    ------
    InputError
        If the model does not fit the assignment or the data, has weights that are not finite, or the loss diverges; if
        the folder cannot be written, holds training already, or with `resume` none or another one.
    UnsupportedError
        If a pattern is not one of weights (SAS).
    Interrupted
        On a keyboard interrupt; the last checkpoint is whole.
    """
    folder = RunFolder(run_dir)
    refuse_non_finite(model.state_dict(), source=f"model {type(model).__name__}")
    refitted = refitted or {}
    if refitted:
        config = config.model_copy(update={"prune_frac": 0.0})
    start = model if dense is None else dense
    learner = Learner(
        model,
        data,
        assignment=assignment,
        config=config,
        teacher=frozen_copy(start) if config.distillation > 0 and (assignment or dense is not None) else None,
        guide=guide,
        processes=processes,
    )
    fresh = CheckpointState(
        epoch=0,
        config=config,
        data=data.name,
        train_images=len(data.train),
        assignment_sha256=assignment_sha256(assignment),
        dense=None,
        epochs=(),
        duration_s=0.0,
    )
    state = _resume(folder, learner, fresh) if resume else _begin(folder, learner, fresh, start)
    shared = shared_batch_norm(model, device=device_of(model)) if processes.size > 1 else nullcontext()
    try:
        with shared:
            accuracy = state.dense or _evaluate_dense(learner, progress=progress)
            state = state.model_copy(update={"dense": accuracy})
            if state.epoch == 0 and (refitted or config.epochs == 0):
                learner.prune_now(refitted)
            while state.epoch < config.epochs:
                state = _advance(folder, learner, state, progress=progress)
            return _finish(folder, learner, state, dense=accuracy)
    except KeyboardInterrupt:
        raise Interrupted(
            f"training interrupted after epoch {state.epoch} of {config.epochs}; "
            f"its checkpoint is in {folder.checkpoints}; run the same command with --resume to go on"
        ) from None
    finally:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _begin(folder: RunFolder, learner: Learner, fresh: CheckpointState, start: nn.Module) -> CheckpointState:
    if folder.last_checkpoint.exists() or folder.history.exists():
        raise InputError(
            f"run folder {folder.path} holds a training run already; give --resume to go on with it, "
            "or name another folder"
        )
    learner.processes.wait()
    if learner.processes.writes:
        folder.make()
        save_weights(start, folder.dense_weights)
        folder.save_checkpoint(learner.checkpoint(fresh))
    learner.processes.wait()
    return fresh


def _resume(folder: RunFolder, learner: Learner, fresh: CheckpointState) -> CheckpointState:
    checkpoint = folder.load_checkpoint()
    saved = checkpoint.state
    if saved.assignment_sha256 != fresh.assignment_sha256:
        raise InputError(
            f"the checkpoint in {folder.path} is of another plan; resume with the plan it was started with, "
            "or start in another folder"
        )
    wanted = {**fresh.config.model_dump(), "data": fresh.data, "train_images": fresh.train_images}
    for name, seen in {**saved.config.model_dump(), "data": saved.data, "train_images": saved.train_images}.items():
        if seen != wanted[name]:
            raise InputError(
                f"the checkpoint in {folder.path} was made with {name} = {seen!r}, not {wanted[name]!r}; "
                "resume with the same options or start in another folder"
            )
    learner.restore(checkpoint, source=f"checkpoint {folder.last_checkpoint}")
    if learner.teacher is not None:
        load_weights(learner.teacher, folder.dense_weights)
    if isinstance(learner.regulariser, GuidedRegulariser):
        dense, _ = read_safetensors(folder.dense_weights)
        names = [layer.target.name for layer in learner.regulariser.layers]
        learner.regulariser.keep_dense({name: dense[f"{name}.weight"] for name in names})
    return saved


def _evaluate_dense(learner: Learner, *, progress: Progress) -> DenseStart:
    stage = "evaluating the dense start"
    model, data, batch_size = learner.model, learner.data, learner.config.batch_size
    progress(stage, 0, 2)
    validation = evaluate(model, data, data.validation, batch_size=batch_size)
    progress(stage, 1, 2)
    test = evaluate(model, data, data.test, batch_size=batch_size)
    progress(stage, 2, 2)
    return DenseStart(validation_accuracy_frac=validation.accuracy_frac, test_accuracy_frac=test.accuracy_frac)


def _advance(folder: RunFolder, learner: Learner, state: CheckpointState, *, progress: Progress) -> CheckpointState:
    """Train for one epoch and leave a checkpoint of it."""
    started = time.perf_counter()
    epoch, data, config = state.epoch + 1, learner.data, learner.config
    stage = f"training epoch {epoch} of {config.epochs}"

    def report(done: float, steps: float) -> None:
        # Counted over all epochs, so that the time left is that of the training.
        progress(stage, (epoch - 1) * steps + done, config.epochs * steps)

    outcome = learner.run_epoch(epoch, report=report)
    with learner.averaged():
        validation = evaluate(learner.model, data, data.validation, batch_size=config.batch_size)
    if not math.isfinite(validation.loss):
        raise InputError(
            f"training diverged: the validation loss is {validation.loss} after epoch {epoch}; the checkpoint of the "
            f"epoch before is kept; start a new run with a learning rate below {config.learning_rate:g}"
        )
    duration_s = time.perf_counter() - started
    record = EpochRecord(
        epoch=epoch,
        phase=learner.phase(epoch),
        learning_rate=outcome.learning_rate,
        train_loss=outcome.loss,
        validation_loss=validation.loss,
        validation_accuracy_frac=validation.accuracy_frac,
        sparsity={layer.target.name: layer.zero_frac for layer in learner.regulariser.layers},
        strength=dict(learner.regulariser.strength) if learner.phase(epoch) == "prune" else {},
        duration_s=duration_s,
    )
    records = (*state.epochs, record)
    state = state.model_copy(
        update={"epoch": epoch, "epochs": records, "duration_s": state.duration_s + duration_s},
    )
    if learner.processes.writes:
        if best_epoch(records) == epoch:
            with learner.averaged():
                save_weights(learner.model, folder.best_weights)
        folder.save_checkpoint(learner.checkpoint(state))
        folder.save_records(records)
    return state


def best_epoch(records: Sequence[EpochRecord]) -> int | None:
    """Epoch of the highest validation accuracy after the pruning phase; of equals the one of the lowest loss."""
    tuned = [record for record in records if record.phase != "prune"]
    if not tuned:
        return None
    return max(tuned, key=lambda record: (record.validation_accuracy_frac, -record.validation_loss)).epoch


def _finish(folder: RunFolder, learner: Learner, state: CheckpointState, *, dense: DenseStart) -> TrainingHistory:
    started = time.perf_counter()
    model, data, config = learner.model, learner.data, learner.config
    if state.epoch > 0:
        learner.processes.wait()
        load_weights(model, folder.best_weights)
    elif learner.regulariser.layers or is_factorised(model):
        reestimate_batch_norm(model, data, batch_size=config.batch_size, seed=config.seed)
    validation = evaluate(model, data, data.validation, batch_size=config.batch_size)
    test = evaluate(model, data, data.test, batch_size=config.batch_size)
    history = TrainingHistory(
        config=config,
        epochs=state.epochs,
        decisions=learner.regulariser.state().decisions,
        bounds=learner.regulariser.bounds() if isinstance(learner.regulariser, GuidedRegulariser) else {},
        steps_per_epoch=learner.steps,
        dense_validation_accuracy_frac=dense.validation_accuracy_frac,
        dense_test_accuracy_frac=dense.test_accuracy_frac,
        validation_accuracy_frac=validation.accuracy_frac,
        test_accuracy_frac=test.accuracy_frac,
        classes=len(data.classes),
        duration_s=state.duration_s + time.perf_counter() - started,
    )
    if learner.processes.writes:
        write_tensors(folder.planned_weights, plain_state(model), metadata={})
        folder.save_history(history)
    return history
