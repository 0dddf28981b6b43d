"""Data SPECs: digits, users' own arrays, and what is said where a SPEC is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sparseplan.data_spec import load_data
from sparseplan.kernels.errors import InputError

HEADER = """
import numpy as np
import torch
from sparseplan.trainer.data import DataSplits, Split
x = np.arange(20 * 2 * 3 * 3, dtype=np.uint8).reshape(20, 2, 3, 3)
y = np.arange(20) % 2
"""


def write(tmp_path: Path, body: str) -> str:
    path = tmp_path / "own_data.py"
    path.write_text(f"{HEADER}\ndef load():\n    {body}\n")
    return f"{path}:load"


def message(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        load_data(spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_digits() -> None:
    data, again = load_data("digits"), load_data("digits")
    splits = (data.train, data.validation, data.test)

    assert sum(len(split) for split in splits) == 1797
    assert len(data.test) == pytest.approx(0.2 * 1797, abs=5)
    assert len(data.validation) == pytest.approx(0.1 * 0.8 * 1797, abs=5)
    assert data.train.images.shape[1:] == (1, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert data.train.images.max() == 255
    assert len(data.train.images.unique()) == 17
    assert data.classes == tuple("0123456789")
    assert data.augment == "shift"
    for split, other in zip(splits, (again.train, again.validation, again.test), strict=True):
        assert split.labels.unique().tolist() == list(range(10))
        assert torch.equal(split.images, other.images)


def test_digits_splits_share_no_image() -> None:
    data = load_data("digits")
    train, validation, test = (
        {image.numpy().tobytes() for image in split.images} for split in (data.train, data.validation, data.test)
    )
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_four_arrays_of_bytes(tmp_path: Path) -> None:
    data = load_data(write(tmp_path, "return x, y, x[:4], y[:4]"))

    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 4)
    assert data.train.images.dtype == torch.uint8
    assert data.classes == ("0", "1")
    assert data.augment == "none"
    assert data.mean[0] == pytest.approx(np.arange(360, dtype=np.uint8).reshape(20, 2, 3, 3)[:, 0].mean() / 255)


def test_four_tensors_of_floats_are_taken_as_they_are(tmp_path: Path) -> None:
    data = load_data(
        write(tmp_path, "t = torch.from_numpy(x).double(); u = torch.from_numpy(y).int(); return [t, u, t[:4], u[:4]]")
    )

    assert data.train.images.dtype == torch.float32
    assert data.train.labels.dtype == torch.int64
    assert torch.equal(data.normalise(data.test.images), data.test.images)
    assert data.test.images[3, 1, 2, 2] == 71


def test_splits_of_a_user_are_taken_as_they_are(tmp_path: Path) -> None:
    data = load_data(
        write(
            tmp_path,
            "s = Split(images=torch.from_numpy(x), labels=torch.from_numpy(y)); "
            "return DataSplits(name='own', train=s, validation=s, test=s, classes=('a', 'b'), mean=(0.5, 0.5), "
            "std=(1.0, 1.0), augment='shift')",
        )
    )
    assert data.name == "own"
    assert data.augment == "shift"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "gave int; return a DataSplits or"),
        ("return x, y", "gave 2 values"),
        ("return x, y, x, None", "gave a NoneType among its arrays"),
        ("return x[:, 0], y, x, y", "train_x has shape (20, 3, 3)"),
        ("return x, y, x[:0], y[:0]", "test_x has shape (0, 2, 3, 3)"),
        ("return x, y[:-1], x, y", "train_y has shape (19,)"),
        ("return x, y * 0.5, x, y", "of float64; it must be [20] of integers"),
        ("return x, y - 1, x, y", "train_y has a label -1"),
        ("return x, y, x, y + 1", "test_y has a label 2, train_y ends at 1"),
        ("return x.astype(int), y, x, y", "train_x is of int64"),
        ("return x, y, x.astype(float), y", "train_x is uint8, test_x is float32"),
        ("return x * np.float32('nan'), y, x, y", "train_x has NaN or infinite values"),
        ("return x, y, x[:, :, 1:], y", "test images are 2 x 2 x 3, training images are 2 x 3 x 3"),
        ("return x[:2], y[:2], x, y", "a single training image"),
        ("raise ValueError('no such table')", "ValueError: no such table (own_data.py, line 9)"),
    ],
)
def test_callables_with_a_fault(tmp_path: Path, body: str, said: str) -> None:
    assert said in message(write(tmp_path, body))


@pytest.mark.parametrize("spec", ["", "cifar100", "cifar100:", "no such:form", "data.csv"])
def test_unknown_forms_name_the_known_ones(spec: str) -> None:
    assert "mnist:DIR" in message(spec)


def test_digits_takes_no_folder() -> None:
    assert "takes no folder" in message("digits:here")


@pytest.mark.parametrize("scheme", ["mnist", "cifar10", "imagefolder"])
def test_folder_forms_need_a_folder(scheme: str) -> None:
    assert f"give {scheme}:DIR" in message(scheme)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / "pictures") in message("imagefolder:~/pictures")
