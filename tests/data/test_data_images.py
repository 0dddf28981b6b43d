"""Folders and archives of images, CIFAR-10 in its forms, and the cache of decoded images."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparseplan.data import image_tree
from sparseplan.data.decoded_cache import cache_path
from sparseplan.data_spec import load_data
from sparseplan.kernels.errors import InputError, UnsupportedError

COUNTS = {"train": {"cat": 12, "ant": 20}, "test": {"cat": 3, "ant": 2}}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def save_png(path: Path, seed: int, *, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def make_tree(root: Path, counts: dict[str, dict[str, int]] | None = None) -> dict[str, np.ndarray]:
    pixels = {}
    for part, classes in (counts or COUNTS).items():
        for name, count in classes.items():
            for number in range(count):
                place = f"{part}/{name}/{number:04d}.png"
                pixels[place] = save_png(root / place, len(pixels))
    return pixels


def pack(root: Path, archive: Path, *, prefix: str = "") -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(root.rglob("*.png"), reverse=True):
            tar.add(path, arcname=f"{prefix}{path.relative_to(root)}")
    return archive


def message(spec: str, error: type[Exception] = InputError) -> str:
    with pytest.raises(error) as caught:
        load_data(spec)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_imagefolder(tmp_path: Path) -> None:
    pixels = make_tree(tmp_path)
    data = load_data(f"imagefolder:{tmp_path}")
    tests = [pixels[place] for place in sorted(pixels) if place.startswith("test/")]
    trains = np.stack([pixels[place] for place in sorted(pixels) if place.startswith("train/")])

    assert data.classes == ("ant", "cat")
    assert data.test.labels.tolist() == [0, 0, 1, 1, 1]
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), np.stack(tests))
    assert (len(data.train), len(data.validation)) == (29, 3)
    assert data.validation.labels.tolist() == [0, 0, 1]
    assert data.augment == "none"
    np.testing.assert_allclose(data.mean, trains.mean(axis=(0, 1, 2)) / 255)
    np.testing.assert_allclose(data.std, trains.std(axis=(0, 1, 2)) / 255)


def test_normalised_training_images_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    make_tree(tmp_path)
    data = load_data(f"imagefolder:{tmp_path}")
    x = data.normalise(torch.cat([data.train.images, data.validation.images]))

    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_splits_share_no_image_and_never_change(tmp_path: Path) -> None:
    make_tree(tmp_path)
    first, second = (load_data(f"imagefolder:{tmp_path}") for _ in range(2))
    seen = [
        {image.numpy().tobytes() for image in split.images} for split in (first.train, first.validation, first.test)
    ]

    assert sum(map(len, seen)) == len(set().union(*seen)) == 37
    for one, other in ((first.train, second.train), (first.validation, second.validation), (first.test, second.test)):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_val_is_the_test_data_where_there_is_no_test(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train": {"a": 10}, "val": {"a": 4}})
    data = load_data(f"imagefolder:{tmp_path}")
    assert (len(data.train), len(data.validation), len(data.test)) == (9, 1, 4)


def test_val_validates_where_there_is_a_test(tmp_path: Path) -> None:
    pixels = make_tree(tmp_path, {"train": {"a": 10}, "val": {"a": 4}, "test": {"a": 2}})
    data = load_data(f"imagefolder:{tmp_path}")

    assert (len(data.train), len(data.validation), len(data.test)) == (10, 4, 2)
    assert np.array_equal(data.validation.images[0].permute(1, 2, 0).numpy(), pixels["val/a/0000.png"])


def test_grey_images_become_rgb_and_other_files_are_passed_over(tmp_path: Path) -> None:
    make_tree(tmp_path)
    grey = save_png(tmp_path / "test" / "ant" / "0000.png", 99, mode="L")
    (tmp_path / "test" / "ant" / "notes.txt").write_text("text")
    (tmp_path / "test" / "ant" / "._0000.png").write_bytes(b"of another system")
    (tmp_path / "test" / ".hidden").mkdir()
    data = load_data(f"imagefolder:{tmp_path}")

    assert len(data.test) == 5
    for channel in range(3):
        assert np.array_equal(data.test.images[0, channel].numpy(), grey)


@pytest.mark.parametrize("prefix", ["", "./", "some/where/"])
def test_an_archive_equals_its_folder(tmp_path: Path, prefix: str) -> None:
    make_tree(tmp_path / "tree")
    archive = pack(tmp_path / "tree", tmp_path / "images.tar.gz", prefix=prefix)
    folder, packed = load_data(f"cifar10:{tmp_path / 'tree'}"), load_data(f"cifar10:{archive}")

    assert packed.classes == folder.classes
    assert torch.equal(packed.train.images, folder.train.images)
    assert torch.equal(packed.test.labels, folder.test.labels)
    assert not (tmp_path / "train").exists()


def test_of_a_member_packed_twice_the_last_counts(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    archive = tmp_path / "images.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "tree" / "train", "train")
        tar.add(tmp_path / "tree" / "test", "test")
        tar.add(tmp_path / "tree" / "test" / "cat" / "0002.png", "test/ant/0000.png")
    data = load_data(f"imagefolder:{archive}")

    assert len(data.test) == 5
    assert torch.equal(data.test.images[0], data.test.images[4])


def test_cifar10_by_folder_archive_and_folder_of_the_archive(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "there").mkdir()
    pack(tmp_path / "tree", tmp_path / "there" / "cifar10-jpeg.tar.gz")
    data = load_data(f"cifar10:{tmp_path / 'there'}")

    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)
    assert data.augment == "crop_flip"
    assert len(data.test) == 5


def write_batches(folder: Path, records: int = 20) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    all_records = rng.integers(0, 256, (6, records, 3073), dtype=np.uint8)
    all_records[:, :, 0] = np.arange(records) % 10
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        (folder / f"{name}.bin").write_bytes(all_records[number].tobytes())
    return all_records


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-bin"])
def test_cifar10_binary(tmp_path: Path, subfolder: str) -> None:
    records = write_batches(tmp_path / subfolder)
    data = load_data(f"cifar10:{tmp_path}")

    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.classes[3] == "cat"
    assert data.test.labels.tolist() == records[5, :, 0].tolist()
    # The first byte after the label is red at the upper left, the 34th red one row below.
    assert data.test.images[2, 0, 0, 0] == records[5, 2, 1]
    assert data.test.images[2, 0, 1, 0] == records[5, 2, 33]
    assert data.test.images[2, 2, 31, 31] == records[5, 2, 3072]
    together = {image.tobytes() for split in (data.train, data.validation) for image in split.images.numpy()}
    assert together == {record[1:].tobytes() for batch in records[:5] for record in batch}


def test_cifar10_binary_that_is_damaged(tmp_path: Path) -> None:
    write_batches(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    text = message(f"cifar10:{tmp_path}")
    assert str(path) in text
    assert f"{len(whole) - 1} bytes" in text
    path.write_bytes(b"\x0b" + whole[1:])
    assert "has a label 11" in message(f"cifar10:{tmp_path}")
    path.unlink()
    assert f"cannot read {path}" in message(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-py"])
def test_pickles_are_never_opened(tmp_path: Path, subfolder: str) -> None:
    (tmp_path / subfolder).mkdir(exist_ok=True)
    (tmp_path / subfolder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch /nowhere'\ntR.")
    assert "binary version" in message(f"cifar10:{tmp_path}", UnsupportedError)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "train" / "dog").mkdir(), "train/dog has no images"),
        (lambda root: (root / "train").rename(root / "elsewhere"), "no train/CLASS folders"),
        (lambda root: (root / "test").rename(root / "elsewhere"), "no test/CLASS or val/CLASS"),
        (lambda root: save_png(root / "test" / "dog" / "1.png", 0), "class 'dog' is in test/ but not in train/"),
        (lambda root: (root / "train" / "ant" / "0003.png").write_bytes(b"not an image"), "0003.png is not an image"),
        (lambda root: cut(root / "train" / "ant" / "0003.png"), "0003.png is damaged"),
        (lambda root: save_png(root / "train" / "ant" / "0003.png", 0, size=(6, 4)), "0003.png is 6x4"),
        (lambda root: save_deep(root / "train" / "ant" / "0003.png"), "8 bits a channel"),
    ],
)
def test_trees_with_a_fault(tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    make_tree(tmp_path)
    change(tmp_path)
    assert said in message(f"imagefolder:{tmp_path}")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def save_deep(path: Path) -> None:
    Image.fromarray(np.arange(20, dtype=np.uint16).reshape(4, 5)).save(path)


def test_two_sizes_name_both_files(tmp_path: Path) -> None:
    make_tree(tmp_path)
    save_png(tmp_path / "test" / "cat" / "0001.png", 0, size=(9, 7))
    text = message(f"imagefolder:{tmp_path}")

    assert "train/ant/0000.png is 5x4" in text
    assert "test/cat/0001.png is 9x7" in text


def test_nothing_there(tmp_path: Path) -> None:
    for scheme in ("imagefolder", "cifar10"):
        assert str(tmp_path) in message(f"{scheme}:{tmp_path}")
        assert "nowhere" in message(f"{scheme}:{tmp_path / 'nowhere'}")


def test_single_images_cannot_be_divided(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train": {"a": 1, "b": 1}, "test": {"a": 1}})
    assert "a single training image" in message(f"imagefolder:{tmp_path}")


def test_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path)
    monkeypatch.setattr(image_tree, "MAX_BYTES", 37 * 60 - 1)
    text = message(f"imagefolder:{tmp_path}")

    assert "37 images of 5x4" in text
    monkeypatch.setattr(image_tree, "MAX_BYTES", 37 * 60)
    assert len(load_data(f"imagefolder:{tmp_path}").test) == 5


@pytest.mark.parametrize("kept", [0.5, 0.0])
def test_truncated_archive(tmp_path: Path, kept: float) -> None:
    make_tree(tmp_path / "tree")
    archive = pack(tmp_path / "tree", tmp_path / "images.tar.gz")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * kept)])
    assert f"{archive} is not a whole tar archive" in message(f"cifar10:{archive}")


def test_damaged_image_in_an_archive(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "tree" / "test" / "cat" / "0001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    archive = pack(tmp_path / "tree", tmp_path / "images.tar.gz")
    assert "images.tar.gz!test/cat/0001.png" in message(f"cifar10:{archive}")


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    decoded: list[str] = []
    decode = image_tree._decode_one

    def counting(file: image_tree.ImageFile) -> np.ndarray:
        decoded.append(file.place)
        return decode(file)

    monkeypatch.setattr(image_tree, "_decode_one", counting)
    return decoded


def test_images_are_decoded_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path)
    decoded = count_decoded(monkeypatch)
    first = load_data(f"imagefolder:{tmp_path}")
    assert len(decoded) == 37
    second = load_data(f"imagefolder:{tmp_path}")
    assert len(decoded) == 37
    assert torch.equal(first.train.images, second.train.images)

    pixels = save_png(tmp_path / "test" / "ant" / "0000.png", 1234)
    third = load_data(f"imagefolder:{tmp_path}")
    assert len(decoded) == 2 * 37
    assert np.array_equal(third.test.images[0].permute(1, 2, 0).numpy(), pixels)


def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path)
    first = load_data(f"imagefolder:{tmp_path}")
    path = cache_path(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    decoded = count_decoded(monkeypatch)
    for number, content in enumerate([whole[: len(whole) // 2], b"", b"not a zip file", bytes(flipped)], start=1):
        path.write_bytes(content)
        again = load_data(f"imagefolder:{tmp_path}")
        assert len(decoded) == 37 * number
        assert torch.equal(again.train.images, first.train.images)
        assert path.read_bytes() != content
    with zipfile.ZipFile(path) as stored:
        assert stored.testzip() is None


def test_a_cache_that_holds_pickles_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path)
    load_data(f"imagefolder:{tmp_path}")
    path = cache_path(tmp_path)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, key=np.array([{"any": "object"}], dtype=object))
    decoded = count_decoded(monkeypatch)
    load_data(f"imagefolder:{tmp_path}")
    assert len(decoded) == 37


def test_without_a_place_for_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path)
    blocked = tmp_path / "a file, not a folder"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert len(load_data(f"imagefolder:{tmp_path}").test) == 5


def test_cache_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/of/somebody")
    assert cache_path(Path("data")).parent == Path("/home/of/somebody/.cache/sparseplan")


def test_progress_is_told(tmp_path: Path) -> None:
    make_tree(tmp_path)
    told: list[tuple[str, float, float]] = []
    load_data(f"imagefolder:{tmp_path}", progress=lambda stage, done, total: told.append((stage, done, total)))
    assert told[-1] == ("decode images", 37, 37)


def test_jpeg(tmp_path: Path) -> None:
    make_tree(tmp_path)
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (200, 10, 10)).save(buffer, format="JPEG")
    (tmp_path / "test" / "ant" / "zz.JPG").write_bytes(buffer.getvalue())
    data = load_data(f"imagefolder:{tmp_path}")

    assert len(data.test) == 6
    assert abs(int(data.test.images[2, 0, 0, 0]) - 200) < 10
