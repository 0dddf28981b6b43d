"""The run folder: where each file lies, and how weights and checkpoints get in and out of it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..kernels.documents import read_document, write_atomic, write_document, write_records
from ..kernels.errors import InputError
from .migrations import history_to_2, state_to_2
from .schema import CheckpointState, EpochRecord, RunManifest, TrainingHistory
from .weights import fill_model

_STATE = "sparseplan.state"
_GROUPS = ("model", "optimizer", "mask", "hidden", "average")
"""Of the tensors in a checkpoint: each name begins with one of these and a slash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a resumed run needs.

    Attributes
    ----------
    model, average : mapping
        By parameter or buffer; the moving average is empty where none is made.
    optimizer : mapping
        By ``KEY/PARAMETER``.
    masks, hidden : mapping
        By layer or width group; weights that N:M masks hide.
    """

    state: CheckpointState
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    hidden: Mapping[str, Tensor]
    average: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run: the only place that knows their names."""

    path: Path

    @property
    def manifest(self) -> Path:
        return self.path / "run.json"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def profile(self) -> Path:
        return self.path / "profile.json"

    @property
    def dense_weights(self) -> Path:
        """Weights that training started from."""
        return self.path / "dense.safetensors"

    @property
    def planned_weights(self) -> Path:
        """Weights that carry the plan's zeros: what training was for."""
        return self.path / "planned.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / "last.safetensors"

    @property
    def last_state(self) -> Path:
        """The header of the last checkpoint, for people to open."""
        return self.checkpoints / "last.json"

    @property
    def best_weights(self) -> Path:
        return self.checkpoints / "best.safetensors"

    @property
    def records(self) -> Path:
        return self.path / "training.jsonl"

    @property
    def history(self) -> Path:
        return self.path / "training.json"

    @property
    def measurements(self) -> Path:
        return self.path / "measurements.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def start(self, manifest: RunManifest, plan: Path, *, profile: Path | None, resume: bool) -> None:
        """Make the folder with its manifest and copies of plan and profile, or check that it is of this very run.

        Raises
        ------
        InputError
            If the folder holds another run, or something at all without `resume`; if it cannot be written.
        """
        if resume:
            self._refuse_other_run(manifest)
            return
        try:
            occupied = self.path.exists() and any(self.path.iterdir())
        except OSError as error:
            raise InputError(
                f"cannot use {self.path} as run folder: {error.strerror}; give a new or an empty folder"
            ) from None
        if occupied:
            raise InputError(
                f"run folder {self.path} is not empty; give --resume to go on with its run, or name another folder"
            )
        self.make()
        copies = ((plan, self.plan),) if profile is None else ((plan, self.plan), (profile, self.profile))
        for source, target in copies:
            if not source.is_file():
                raise InputError(f"cannot copy {source} into run folder {self.path}: no such file")
            write_atomic(target, partial(_copy, source))
        self.save_manifest(manifest)

    def make(self) -> None:
        """Make the folder and the one for its checkpoints.

        Raises
        ------
        InputError
            If that is not possible.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make run folder {self.path}: {error.strerror}; give a path in a writable folder"
            ) from None

    def save_manifest(self, manifest: RunManifest) -> None:
        write_document(self.manifest, manifest)

    def load_manifest(self) -> RunManifest:
        """Read ``run.json``.

        Raises
        ------
        InputError
            If the folder is not a run's.
        """
        return read_document(self.manifest, RunManifest, kind="run manifest (made by 'sparseplan train')")

    def save_records(self, records: Iterable[EpochRecord]) -> None:
        write_records(self.records, records)

    def save_history(self, history: TrainingHistory) -> None:
        write_document(self.history, history)

    def load_history(self) -> TrainingHistory:
        """Read ``training.json``.

        Raises
        ------
        InputError
            If the run is not finished.
        """
        kind = "training history (made by 'sparseplan train')"
        return read_document(self.history, TrainingHistory, kind=kind, migrations={1: history_to_2})

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace the last checkpoint in one move: state and tensors are one file, so they cannot disagree.

        Raises
        ------
        InputError
            If it cannot be written; the previous one is then intact.
        """
        groups = (checkpoint.model, checkpoint.optimizer, checkpoint.masks, checkpoint.hidden, checkpoint.average)
        tensors = {
            f"{prefix}/{name}": tensor
            for prefix, group in zip(_GROUPS, groups, strict=True)
            for name, tensor in group.items()
        }
        state = checkpoint.state.model_dump_json()
        write_tensors(self.last_checkpoint, tensors, metadata={_STATE: state})
        write_document(self.last_state, checkpoint.state)

    def load_checkpoint(self) -> Checkpoint:
        """Read the last checkpoint.

        Raises
        ------
        InputError
            If there is none, or the file is not one.
        """
        path = self.last_checkpoint
        if not path.is_file():
            raise InputError(
                f"run folder {self.path} has no checkpoint to resume from; start without --resume in an empty folder"
            )
        tensors, metadata = read_safetensors(path)
        try:
            content = json.loads(metadata.get(_STATE, ""))
            if content["schema_version"] == 1:
                content, tensors = state_to_2(content), _tensors_to_2(tensors)
            state = CheckpointState.model_validate_json(json.dumps(content))
        except (ValueError, LookupError, TypeError, InputError):
            raise InputError(
                f"{path} is not a checkpoint that this sparseplan wrote; start again in another folder"
            ) from None
        model, optimizer, masks, hidden, average = (
            {name.removeprefix(f"{group}/"): each for name, each in tensors.items() if name.startswith(f"{group}/")}
            for group in _GROUPS
        )
        return Checkpoint(state=state, model=model, optimizer=optimizer, masks=masks, hidden=hidden, average=average)

    def _refuse_other_run(self, manifest: RunManifest) -> None:
        saved = self.load_manifest()
        for name, what in (("model", "model"), ("data", "data"), ("plan_sha256", "plan")):
            if getattr(saved, name) != getattr(manifest, name):
                raise InputError(
                    f"run folder {self.path} was made with {what} {getattr(saved, name)}, not "
                    f"{getattr(manifest, name)}; resume with the same {what} or start in another folder"
                )


def _tensors_to_2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Version 1 knew one optimiser, SGD."""
    return {name.replace("momentum/", "optimizer/momentum_buffer/", 1): each for name, each in tensors.items()}


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's parameters and buffers as safetensors, atomically.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_tensors(path, model.state_dict(), metadata={})


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model from a ``.safetensors`` file, or from a ``.pt``/``.pth`` file that holds nothing but tensors.

    Names must match exactly, apart from the step counters of batch-norms, which may be missing.

    Raises
    ------
    InputError
        If the file cannot be read, a tensor is missing, unexpected or of another shape, or a value is NaN or infinite.
    """
    if path.suffix == ".safetensors":
        tensors, _ = read_safetensors(path)
    elif path.suffix in {".pt", ".pth"}:
        tensors = _read_torch(path)
    else:
        raise InputError(f"weights {path}: unknown kind {path.suffix!r}; allowed are .safetensors, .pt and .pth")
    fill_model(model, tensors, source=f"weights {path}")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: dict[str, str]) -> None:
    """Write tensors and texts as safetensors, atomically.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    # Cloned, because safetensors takes neither tied weights nor channels_last; through bytes, because its own writer
    # reports a full disk as something else than an OSError.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    content = save(plain, metadata=metadata or None)
    write_atomic(path, partial(_write_bytes, content))


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and its texts.

    Raises
    ------
    InputError
        If the file is missing or not of that kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give the path of an existing file") from None
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file ({error}); it may be truncated, make it again") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"cannot read {path}: no such file; give the path of an existing file")
    if not is_zipfile(path):
        raise InputError(f"{path} is not a file that torch.save wrote; it may be truncated, make it again")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a file of tensors alone: {reason}; save the model's state_dict()") from None
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise InputError(f"{path} does not hold tensors by name; save the model's state_dict()")
    return content
