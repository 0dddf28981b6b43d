from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sparseplan.kernels.errors import InputError
from sparseplan.trainer.schema import CheckpointState, RunManifest, TrainConfig
from sparseplan.trainer.store import Checkpoint, RunFolder, load_weights, save_weights


def manifest(**changes: str) -> RunManifest:
    fields = {"model": "zoo:lenet", "data": "digits", "plan_sha256": "a" * 64, **changes}
    return RunManifest(created=datetime(2025, 1, 1, tzinfo=UTC), dense_weights=None, **fields)


def checkpoint(epoch: int) -> Checkpoint:
    state = CheckpointState(
        epoch=epoch,
        config=TrainConfig(epochs=9),
        data="digits",
        train_images=10,
        assignment_sha256="b" * 64,
        dense=None,
        epochs=(),
        duration_s=1.5,
    )
    return Checkpoint(
        state=state,
        model={"a.weight": torch.full((2, 3), float(epoch))},
        optimizer={"momentum_buffer/a.weight": torch.ones(2, 3)},
        masks={"a": torch.tensor([True, False])},
        hidden={"a": torch.full((2,), 0.5)},
        average={"a.weight": torch.zeros(2, 3)},
    )


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "some-plan.json"
    path.write_text('{"a": 1}\n')
    return path


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.make()
    return folder


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_started_folder_holds_manifest_plan_and_profile(tmp_path: Path, plan: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text("{}")
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.start(manifest(), plan, profile=profile, resume=False)
    assert folder.load_manifest() == manifest()
    assert folder.plan.read_bytes() == plan.read_bytes()
    assert folder.profile.read_bytes() == profile.read_bytes()


def test_a_folder_in_use_needs_resume(tmp_path: Path, plan: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(manifest(), plan, profile=None, resume=False)
    with pytest.raises(InputError, match="not empty; give --resume"):
        folder.start(manifest(), plan, profile=None, resume=False)
    folder.start(manifest(), plan, profile=None, resume=True)


def test_a_foreign_folder_is_left_alone(tmp_path: Path, plan: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not empty"):
        RunFolder(tmp_path / "home").start(manifest(), plan, profile=None, resume=False)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("field", ["model", "data", "plan_sha256"])
def test_another_run_cannot_be_resumed(tmp_path: Path, plan: Path, field: str) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.start(manifest(), plan, profile=None, resume=False)
    with pytest.raises(InputError, match="not other; resume with the same"):
        folder.start(manifest(**{field: "other"}), plan, profile=None, resume=True)


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path, plan: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read run manifest .*run\.json"):
        RunFolder(tmp_path / "nowhere").start(manifest(), plan, profile=None, resume=True)


def test_a_file_is_no_run_folder(tmp_path: Path, plan: Path) -> None:
    with pytest.raises(InputError, match=r"cannot use .* as run folder: Not a directory"):
        RunFolder(plan).start(manifest(), plan, profile=None, resume=False)
    with pytest.raises(InputError, match="cannot make run folder"):
        RunFolder(plan / "below").make()


def test_a_missing_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json .*no such file"):
        RunFolder(tmp_path / "run").start(manifest(), tmp_path / "gone.json", profile=None, resume=False)


def test_a_checkpoint_comes_back_as_it_was(folder: RunFolder) -> None:
    saved = checkpoint(3)
    folder.save_checkpoint(saved)
    read = folder.load_checkpoint()
    assert read.state == saved.state
    for name in ("model", "optimizer", "masks", "hidden", "average"):
        before, after = getattr(saved, name), getattr(read, name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert CheckpointState.model_validate_json(folder.last_state.read_text()) == saved.state


def test_a_full_disk_keeps_the_last_checkpoint(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save_checkpoint(checkpoint(1))
    monkeypatch.setattr("sparseplan.trainer.store._write_bytes", full_disk)
    with pytest.raises(InputError, match="No space left on device"):
        folder.save_checkpoint(checkpoint(2))
    monkeypatch.undo()
    assert folder.load_checkpoint().state.epoch == 1
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["last.json", "last.safetensors"]


def test_a_folder_without_checkpoint_says_so(folder: RunFolder) -> None:
    with pytest.raises(InputError, match="no checkpoint to resume from; start without --resume"):
        folder.load_checkpoint()


def test_a_truncated_checkpoint_is_named(folder: RunFolder) -> None:
    folder.save_checkpoint(checkpoint(1))
    folder.last_checkpoint.write_bytes(folder.last_checkpoint.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"last\.safetensors is not a safetensors file .*truncated"):
        folder.load_checkpoint()


def test_foreign_weights_are_no_checkpoint(folder: RunFolder) -> None:
    save_file({"a": torch.ones(2)}, folder.last_checkpoint)
    with pytest.raises(InputError, match="not a checkpoint"):
        folder.load_checkpoint()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_fill_another_model(tmp_path: Path, make_net: Callable[[int], nn.Module], suffix: str) -> None:
    source, target = make_net(1).to(memory_format=torch.channels_last), make_net(2)
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_weights(source, path)
    else:
        torch.save(source.state_dict(), path)
    load_weights(target, path)
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name])
    assert target.conv2.weight.is_contiguous()


def test_weights_without_step_counters_are_taken(tmp_path: Path, make_net: Callable[[int], nn.Module]) -> None:
    tensors = {name: value for name, value in make_net(1).state_dict().items() if "num_batches" not in name}
    save_file(tensors, tmp_path / "w.safetensors")
    net = make_net(2)
    load_weights(net, tmp_path / "w.safetensors")
    assert torch.equal(net.fc1.weight, tensors["fc1.weight"])


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    save_weights(net, tmp_path / "w.safetensors")
    assert torch.equal(load_file(tmp_path / "w.safetensors")["1.weight"], net[0].weight)


def spoil(tensors: dict[str, torch.Tensor], how: str) -> None:
    if how == "missing":
        del tensors["fc1.bias"]
    elif how == "unexpected":
        tensors["module.fc9.weight"] = torch.ones(2)
    elif how == "reshaped":
        tensors["fc2.weight"] = torch.ones(7, 64)
    else:
        tensors["bn1.running_var"][3] = float(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"missing fc1\.bias;"),
        ("unexpected", r"unexpected module\.fc9\.weight;"),
        ("reshaped", r"of another shape fc2\.weight \[7, 64\] instead of \[10, 64\]"),
        ("nan", r"tensor bn1\.running_var has 1 of 32 values NaN or infinite"),
        ("inf", r"tensor bn1\.running_var has 1 of 32 values NaN or infinite"),
    ],
)
def test_unfit_weights_are_refused_in_one_line(
    tmp_path: Path, make_net: Callable[[int], nn.Module], how: str, message: str
) -> None:
    tensors = dict(make_net(1).state_dict())
    spoil(tensors, how)
    save_file(tensors, tmp_path / "w.safetensors")
    net = make_net(2)
    before = net.fc2.bias.detach().clone()
    with pytest.raises(InputError, match=message) as seen:
        load_weights(net, tmp_path / "w.safetensors")
    assert "\n" not in str(seen.value)
    assert str(tmp_path / "w.safetensors") in str(seen.value)
    assert torch.equal(net.fc2.bias, before)


def test_many_complaints_stay_short(tmp_path: Path, make_net: Callable[[int], nn.Module]) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"missing .* and 11 more; unexpected x;"):
        load_weights(make_net(1), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.safetensors", None, "cannot read .*gone.safetensors"),
        ("gone.pt", None, "cannot read .*gone.pt: no such file"),
        ("w.safetensors", b"junk", "not a safetensors file"),
        ("w.pt", b"junk", "not a file that torch.save wrote"),
        ("w.pt", b"", "not a file that torch.save wrote"),
        ("w.bin", b"", r"unknown kind '\.bin'; allowed are \.safetensors"),
    ],
)
def test_unreadable_weights_are_named(
    tmp_path: Path, make_net: Callable[[], nn.Module], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_weights(make_net(), tmp_path / name)


def test_a_pickled_module_is_never_run(tmp_path: Path, make_net: Callable[[], nn.Module]) -> None:
    # A class of torch's own: one of the tests' could not be pickled wherever another conftest was loaded first.
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(InputError, match=r"save the model's state_dict\(\)"):
        load_weights(make_net(), tmp_path / "whole.pt")


def test_a_nested_torch_file_is_refused(tmp_path: Path, make_net: Callable[[], nn.Module]) -> None:
    torch.save({"epoch": 3, "state_dict": make_net().state_dict()}, tmp_path / "nested.pt")
    with pytest.raises(InputError, match="does not hold tensors by name"):
        load_weights(make_net(), tmp_path / "nested.pt")
