from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparseplan.kernels.documents import read_records
from sparseplan.kernels.errors import InputError, UnsupportedError
from sparseplan.kernels.groups import magnitude_mask
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.progress import Progress, silent
from sparseplan.kernels.weight_view import weight_view
from sparseplan.trainer import Interrupted
from sparseplan.trainer.assignment import Assignment, LayerSparsity
from sparseplan.trainer.data import DataSplits, Split
from sparseplan.trainer.evaluate import evaluate
from sparseplan.trainer.loop import best_epoch, train
from sparseplan.trainer.schema import EpochRecord, TrainConfig, TrainingHistory
from sparseplan.trainer.store import RunFolder, load_weights

MakeNet = Callable[..., nn.Module]


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"epochs": 4, "batch_size": 32, "learning_rate": 0.05, "label_smoothing": 0.1, **changes})


def assign(**layers: tuple[str, float]) -> Assignment:
    return tuple(
        LayerSparsity(name=name, pattern=parse_pattern(pattern), sparsity=sparsity)
        for name, (pattern, sparsity) in layers.items()
    )


MIXED = assign(conv2=("filter+shape", 0.75), fc1=("unstructured", 0.8))


def stop_at(stage: str) -> Progress:
    """Interrupts at the first word of a stage."""

    def progress(name: str, done: float, total: float) -> None:
        if name == stage:
            raise KeyboardInterrupt

    return progress


def without_times(history: TrainingHistory) -> TrainingHistory:
    epochs = tuple(record.model_copy(update={"duration_s": 0.0}) for record in history.epochs)
    return history.model_copy(update={"duration_s": 0.0, "epochs": epochs})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that others are compared with; its network is not to be changed."""

    net: nn.Module
    history: TrainingHistory
    folder: RunFolder


@pytest.fixture(scope="module")
def dense(digits: DataSplits, make_net: MakeNet, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    net, path = make_net(), tmp_path_factory.mktemp("dense") / "new"
    return Finished(net=net, history=train(net, digits, (), config=config(), run_dir=path), folder=RunFolder(path))


@pytest.fixture(scope="module")
def cropped(digits: DataSplits) -> DataSplits:
    return replace(digits, augment="crop_flip")


@pytest.fixture(scope="module")
def uninterrupted(cropped: DataSplits, make_net: MakeNet, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    net, path = make_net(), tmp_path_factory.mktemp("uninterrupted")
    return Finished(net=net, history=train(net, cropped, MIXED, config=config(), run_dir=path), folder=RunFolder(path))


def test_a_dense_network_learns(dense: Finished) -> None:
    assert dense.history.dense_test_accuracy_frac < 0.3
    assert dense.history.test_accuracy_frac > 0.85
    assert [record.phase for record in dense.history.epochs] == ["dense"] * 4
    assert all(record.sparsity == {} for record in dense.history.epochs)


@pytest.mark.parametrize(
    ("pattern", "sparsity", "slack"),
    [
        ("unstructured", 0.9, 0.5 / 9216),
        ("filter", 0.5, 0.0),
        ("filter+shape", 0.75, 0.0),
        ("2:4", 0.5, 0.0),
        ("block:16x1", 0.75, 0.0),
    ],
)
def test_the_trained_weights_carry_exactly_the_planned_sparsity(
    digits: DataSplits,
    dense: Finished,
    make_net: MakeNet,
    tmp_path: Path,
    pattern: str,
    sparsity: float,
    slack: float,
) -> None:
    net = make_net()
    net.load_state_dict(dense.net.state_dict())
    history = train(net, digits, assign(conv2=(pattern, sparsity)), config=config(), run_dir=tmp_path)
    planned = load_file(RunFolder(tmp_path).planned_weights)["conv2.weight"]
    kept = planned != 0
    assert float((~kept).double().mean()) == pytest.approx(sparsity, abs=slack + 1e-12)
    assert torch.equal(kept, magnitude_mask(planned, parse_pattern(pattern), sparsity))
    assert torch.equal(net.conv2.weight, planned)
    assert [record.phase for record in history.epochs] == ["prune", "prune", "finetune", "finetune"]
    assert history.epochs[0].sparsity["conv2"] > 0
    assert history.epochs[-1].sparsity["conv2"] == pytest.approx(sparsity, abs=slack + 1e-12)
    assert history.dense_test_accuracy_frac == dense.history.test_accuracy_frac
    assert history.test_accuracy_frac > dense.history.test_accuracy_frac - 0.05


def test_the_history_is_that_of_the_weights_in_the_folder(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path
) -> None:
    net = make_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    history = train(net, digits, MIXED, config=config(), run_dir=tmp_path)
    folder, fresh = RunFolder(tmp_path), make_net(9)
    assert folder.load_history() == history
    assert read_records(folder.records, EpochRecord, kind="record") == history.epochs
    dense = load_file(folder.dense_weights)
    assert all(torch.equal(value, dense[name]) for name, value in before.items())
    load_weights(fresh, folder.planned_weights)
    assert evaluate(fresh, digits, digits.test, batch_size=64).accuracy_frac == history.test_accuracy_frac
    best = history.epochs[best_epoch(history.epochs) - 1]
    assert best.phase == "finetune"
    assert best.validation_accuracy_frac == history.validation_accuracy_frac
    assert net.conv2.weight.is_contiguous()


@pytest.mark.parametrize(
    "interrupted", ["evaluating the dense start", "training epoch 2 of 4", "training epoch 4 of 4"]
)
def test_a_resumed_run_ends_with_the_very_weights_of_an_uninterrupted_one(
    cropped: DataSplits, make_net: MakeNet, tmp_path: Path, uninterrupted: Finished, interrupted: str
) -> None:
    finished = max(0, int(interrupted.split()[2]) - 1) if "epoch" in interrupted else 0
    with pytest.raises(Interrupted, match=f"after epoch {finished} of 4.*--resume") as seen:
        train(make_net(), cropped, MIXED, config=config(), run_dir=tmp_path, progress=stop_at(interrupted))
    assert "\n" not in str(seen.value)
    torch.manual_seed(12345)
    history = train(make_net(77), cropped, MIXED, config=config(), run_dir=tmp_path, resume=True)
    assert without_times(history) == without_times(uninterrupted.history)
    for name in ("planned_weights", "last_checkpoint"):
        ours, theirs = load_file(getattr(RunFolder(tmp_path), name)), load_file(getattr(uninterrupted.folder, name))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_finished_run_resumes_to_its_result(cropped: DataSplits, make_net: MakeNet, uninterrupted: Finished) -> None:
    again = train(make_net(5), cropped, MIXED, config=config(), run_dir=uninterrupted.folder.path, resume=True)
    assert without_times(again) == without_times(uninterrupted.history)


def test_another_seed_gives_other_weights(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    nets = [make_net(), make_net()]
    for seed, net in enumerate(nets):
        train(net, digits, (), config=config(epochs=1, seed=seed), run_dir=tmp_path / str(seed))
    assert not torch.equal(nets[0].fc2.weight, nets[1].fc2.weight)


@pytest.mark.parametrize(
    ("changes", "assignment", "message"),
    [
        ({"learning_rate": 0.1}, MIXED, r"made with learning_rate = 0\.05, not 0\.1"),
        ({"epochs": 9}, MIXED, "made with epochs = 4, not 9"),
        ({}, assign(conv2=("filter", 0.5)), "of another plan"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    digits: DataSplits,
    make_net: MakeNet,
    uninterrupted: Finished,
    changes: dict[str, float],
    assignment: Assignment,
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        train(make_net(), digits, assignment, config=config(**changes), run_dir=uninterrupted.folder.path, resume=True)


def test_other_data_are_refused(digits: DataSplits, make_net: MakeNet, uninterrupted: Finished) -> None:
    data = replace(digits, name="other digits")
    with pytest.raises(InputError, match="data = 'digits', not 'other digits'"):
        train(make_net(), data, MIXED, config=config(), run_dir=uninterrupted.folder.path, resume=True)


def test_a_folder_with_training_is_not_overwritten(
    digits: DataSplits, make_net: MakeNet, uninterrupted: Finished
) -> None:
    with pytest.raises(InputError, match="holds a training run already; give --resume"):
        train(make_net(), digits, MIXED, config=config(), run_dir=uninterrupted.folder.path)


def test_nothing_to_resume_is_an_error(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        train(make_net(), digits, MIXED, config=config(), run_dir=tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_checkpoint(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path
) -> None:
    net = make_net()

    def poison(name: str, done: float, total: float) -> None:
        if (name, done) == ("training epoch 2 of 4", 37 + 5):
            net.fc1.weight.data[0, 0] = float("nan")

    with pytest.raises(InputError, match=r"the loss is nan at epoch 2, step 6 of 37;.*learning rate below 0\.05"):
        train(net, digits, MIXED, config=config(), run_dir=tmp_path, progress=poison)
    kept = RunFolder(tmp_path).load_checkpoint()
    assert kept.state.epoch == 1
    assert all(tensor.isfinite().all() for tensor in kept.model.values())


def test_an_epoch_that_ends_in_nonsense_is_not_kept(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    net = make_net()

    def poison(name: str, done: float, total: float) -> None:
        if (name, done) == ("training epoch 2 of 4", 37 + 37):
            net.fc1.weight.data[0, 0] = float("inf")

    with pytest.raises(InputError, match=r"the validation loss is (nan|inf) after epoch 2"):
        train(net, digits, MIXED, config=config(), run_dir=tmp_path, progress=poison)
    assert RunFolder(tmp_path).load_checkpoint().state.epoch == 1


def test_weights_that_are_not_finite_are_refused_before_anything_is_written(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path
) -> None:
    net = make_net()
    net.conv1.weight.data[0] = float("nan")
    with pytest.raises(InputError, match=r"tensor conv1\.weight has 9 of 288"):
        train(net, digits, MIXED, config=config(), run_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_last_checkpoint_and_can_be_resumed(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill_disk(name: str, done: float, total: float) -> None:
        if name == "training epoch 2 of 2":
            monkeypatch.setattr("sparseplan.trainer.store._write_bytes", full_disk)

    short = config(epochs=2)
    with pytest.raises(InputError, match="No space left on device"):
        train(make_net(), digits, MIXED, config=short, run_dir=tmp_path, progress=fill_disk)
    monkeypatch.undo()
    assert RunFolder(tmp_path).load_checkpoint().state.epoch == 1
    history = train(make_net(), digits, MIXED, config=short, run_dir=tmp_path, resume=True)
    assert [record.epoch for record in history.epochs] == [1, 2]


def test_no_epochs_mask_once_and_measure_batch_norm_anew(
    digits: DataSplits, dense: Finished, make_net: MakeNet, tmp_path: Path
) -> None:
    net, masked_only = make_net(), make_net()
    for copy in (net, masked_only):
        copy.load_state_dict(dense.net.state_dict())
    assignment = assign(conv2=("unstructured", 0.7), fc1=("unstructured", 0.6))
    for layer in assignment:
        weight = weight_view(masked_only.get_submodule(layer.name)).detach()
        weight *= magnitude_mask(weight, layer.pattern, layer.sparsity)
    history = train(net, digits, assignment, config=config(epochs=0), run_dir=tmp_path)
    assert torch.equal(net.conv2.weight, masked_only.conv2.weight)
    assert torch.equal(net.fc1.weight, masked_only.fc1.weight)
    assert not torch.equal(net.bn2.running_var, masked_only.bn2.running_var)
    assert history.epochs == ()
    assert history.test_accuracy_frac > dense.history.test_accuracy_frac - 0.15


def test_no_epochs_and_no_plan_leave_the_model_as_it_was(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    net = make_net()
    history = train(net, digits, (), config=config(epochs=0), run_dir=tmp_path)
    assert all(torch.equal(value, make_net().state_dict()[name]) for name, value in net.state_dict().items())
    assert history.test_accuracy_frac == history.dense_test_accuracy_frac


def test_one_epoch_is_pruned_at_once_and_fine_tuned(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    history = train(make_net(), digits, MIXED, config=config(epochs=1), run_dir=tmp_path)
    assert [record.phase for record in history.epochs] == ["finetune"]
    assert history.epochs[0].sparsity["conv2"] == pytest.approx(0.75)


def test_progress_names_the_epoch_and_counts_the_steps_of_all(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path
) -> None:
    seen: list[tuple[str, float, float]] = []
    report = lambda name, done, total: seen.append((name, done, total))  # noqa: E731
    train(make_net(), digits, (), config=config(epochs=2), run_dir=tmp_path, progress=report)
    assert [entry for entry in seen if entry[0] == "training epoch 2 of 2"] == [
        ("training epoch 2 of 2", 37 + step, 2 * 37) for step in range(1, 38)
    ]


def test_bfloat16_autocast_learns_too(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    history = train(
        make_net(), digits, (), config=config(epochs=2, autocast_bfloat16=True), run_dir=tmp_path, progress=silent
    )
    assert history.test_accuracy_frac > 0.7


def test_weight_decay_spares_biases_and_batch_norm(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    nets = [make_net(), make_net()]
    heavy = config(epochs=1, learning_rate=1e-6, weight_decay=1e4, momentum=0.0)
    train(nets[0], digits, (), config=heavy, run_dir=tmp_path)
    for (name, value), before in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        change, size = float((value - before).detach().norm()), float(before.detach().norm())
        assert (change > 1e-2 * size + 1e-4) == (value.dim() > 1), name


def test_a_model_of_another_image_shape_is_refused_before_training(digits: DataSplits, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10))
    with pytest.raises(InputError, match=r"does not take images of shape \(1, 8, 8\)"):
        train(net, digits, (), config=config(), run_dir=tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", -1),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("prune_frac", 1.1),
        ("group_lasso", -1e-3),
        ("seed", -1),
    ],
)
def test_options_outside_their_range_are_named(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"training option {field}: got {value}"):
        config(**{field: value})


def test_the_best_epoch_is_the_most_accurate_after_pruning() -> None:
    def record(epoch: int, phase: str, accuracy: float, loss: float) -> EpochRecord:
        return EpochRecord(
            epoch=epoch,
            phase=phase,
            learning_rate=0.1,
            train_loss=1.0,
            validation_loss=loss,
            validation_accuracy_frac=accuracy,
            sparsity={},
            duration_s=1.0,
        )

    records = [
        record(1, "prune", 0.99, 0.1),
        record(2, "finetune", 0.8, 0.5),
        record(3, "finetune", 0.9, 0.4),
        record(4, "finetune", 0.9, 0.3),
        record(5, "finetune", 0.9, 0.3),
    ]
    assert best_epoch(records) == 4
    assert best_epoch(records[:1]) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_compiled_step_trains_like_an_eager_one(digits: DataSplits, make_net: MakeNet, tmp_path: Path) -> None:
    nets = [make_net(), make_net()]
    small = replace(digits, train=Split(images=digits.train.images[:96], labels=digits.train.labels[:96]))
    for compiled, net in enumerate(nets):
        net.dropout.p = 0.0
        train(net, small, MIXED, config=config(epochs=2, compile=bool(compiled)), run_dir=tmp_path / str(compiled))
    for (name, eager), other in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(other, eager, atol=2e-3, rtol=2e-2, msg=name)
    assert torch.equal(nets[0].conv2.weight == 0, nets[1].conv2.weight == 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_step_that_cannot_be_compiled_is_refused_in_one_line(
    digits: DataSplits, make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def no_compiler(*_: object) -> None:
        raise TorchDynamoException("no C++ compiler\nlong story")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    with pytest.raises(UnsupportedError, match=r"training step here: no C\+\+ compiler; train with compile off$"):
        train(make_net(), digits, (), config=config(compile=True), run_dir=tmp_path)
