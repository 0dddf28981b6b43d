"""IDX files and the data sets made of them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseplan.data.idx import read_idx
from sparseplan.data_spec import load_data
from sparseplan.kernels.errors import InputError


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(path: Path, array: np.ndarray) -> None:
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_set(folder: Path, *, suffix: str = "", kind: str = "-idx") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 40), ("t10k", 12)):
        arrays[f"{part}-images"] = rng.integers(0, 256, (count, 6, 5), dtype=np.uint8)
        arrays[f"{part}-labels"] = (np.arange(count) % 4).astype(np.uint8)
        write_idx(folder / f"{part}-images{kind}3-ubyte{suffix}", arrays[f"{part}-images"])
        write_idx(folder / f"{part}-labels{kind}1-ubyte{suffix}", arrays[f"{part}-labels"])
    return arrays


def message(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("suffix", "kind"), [("", "-idx"), (".gz", "-idx"), ("", ".idx"), (".gz", ".idx")])
def test_a_set_is_read_plain_and_compressed(tmp_path: Path, suffix: str, kind: str) -> None:
    arrays = write_set(tmp_path, suffix=suffix, kind=kind)
    data = load_data(f"mnist:{tmp_path}")

    assert data.test.images.shape == (12, 1, 6, 5)
    assert data.test.images.dtype == torch.uint8
    assert np.array_equal(data.test.images[:, 0].numpy(), arrays["t10k-images"])
    assert np.array_equal(data.test.labels.numpy(), arrays["t10k-labels"])
    assert data.classes == ("0", "1", "2", "3")
    assert (len(data.train), len(data.validation)) == (36, 4)
    assert data.validation.labels.tolist().count(0) == 1
    together = {image.tobytes() for split in (data.train, data.validation) for image in split.images.numpy()}
    assert together == {image.tobytes() for image in arrays["train-images"]}
    assert data.mean[0] == pytest.approx(arrays["train-images"].mean() / 255)
    assert data.std[0] == pytest.approx(arrays["train-images"].std() / 255)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated_content_names_file_and_bytes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"images{suffix}"
    content = idx_bytes(np.ones((4, 6, 5), dtype=np.uint8))[:-7]
    path.write_bytes(gzip.compress(content) if suffix else content)
    text = message(lambda: read_idx(path, dimensions=3))

    assert str(path) in text
    assert "expected 120 bytes" in text
    assert "found 113" in text


def test_truncated_compressed_stream(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    rng = np.random.default_rng(0)
    path.write_bytes(gzip.compress(idx_bytes(rng.integers(0, 256, (100, 6, 5), dtype=np.uint8)))[:-500])
    text = message(lambda: read_idx(path, dimensions=3))

    assert str(path) in text
    assert "expected 3000 bytes" in text


def test_more_content_than_stated(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(np.ones(4, dtype=np.uint8)) + b"x")
    assert "expected 4 bytes after the header, found more" in message(lambda: read_idx(path, dimensions=1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its header has 0 of 16 bytes"),
        (bytes([0, 0, 8, 3, 0, 0]), "its header has 6 of 16 bytes"),
        (idx_bytes(np.ones(50, dtype=np.uint8)), "starts with 00000801, not 00000803"),
        (b"<html><body>404 not found", "not an IDX file"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "are read into memory"),
    ],
)
def test_what_is_not_such_a_file(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    text = message(lambda: read_idx(path, dimensions=3))

    assert said in text
    assert str(path) in text


def test_not_gzip_though_named_so(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(b"plain bytes")
    assert "is not a gzip file" in message(lambda: read_idx(path, dimensions=3))


def test_missing_folder_file_and_colon(tmp_path: Path) -> None:
    assert "no folder" in message(lambda: load_data(f"mnist:{tmp_path / 'nowhere'}"))
    assert "has no train-images-idx3-ubyte" in message(lambda: load_data(f"mnist:{tmp_path}"))
    assert "names no folder" in message(lambda: load_data("mnist"))
    assert "names no folder" in message(lambda: load_data("mnist:"))


def test_counts_and_labels_must_agree(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(11, dtype=np.uint8))
    assert "12 images" in message(lambda: load_data(f"mnist:{tmp_path}"))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.full(12, 9, dtype=np.uint8))
    assert "a test label is 9, training labels end at 3" in message(lambda: load_data(f"mnist:{tmp_path}"))


def test_no_images(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_idx(tmp_path / "train-images-idx3-ubyte", np.empty((0, 6, 5), dtype=np.uint8))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.empty(0, dtype=np.uint8))
    assert "images" in message(lambda: load_data(f"mnist:{tmp_path}"))


def test_mnist_itself(shared_data: Path) -> None:
    data = load_data(f"mnist:{shared_data / 'mnist'}")

    assert (len(data.train) + len(data.validation), len(data.test)) == (60_000, 10_000)
    assert data.train.images.shape[1:] == (1, 28, 28)
    # The constants that MNIST examples everywhere use.
    assert data.mean[0] == pytest.approx(0.1307, abs=5e-5)
    assert data.std[0] == pytest.approx(0.3081, abs=5e-5)
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
