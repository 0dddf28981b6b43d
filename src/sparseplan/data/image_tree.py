"""Decodes a tree of image files into arrays, once."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..kernels.errors import InputError
from ..kernels.progress import Progress, silent
from .assemble import Images
from .decoded_cache import load_cached, store_cached
from .image_files import MAX_BYTES, PARTS, ImageFile, listed_images

_DAMAGED_IMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
_LAYOUT = "RGB uint8 NCHW 1\n"
"""Part of the cache's key: change it with the form of the arrays."""
_PROGRESS_EVERY = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTree:
    """Decoded images by part, with the names of the classes in alphabetical order (a label is its place there)."""

    parts: dict[str, Images]
    classes: tuple[str, ...]


def read_image_tree(root: Path, *, progress: Progress = silent) -> ImageTree:
    """Decode every image under ``train``, ``val`` and ``test`` to RGB.

    Decoded images are kept in the user's cache folder until the files change.

    Parameters
    ----------
    root : Path
        A folder, or a tar archive, which is read without being unpacked.

    Returns
    -------
    ImageTree
        Images [N, 3, H, W] of uint8, in the order of their paths.

    Raises
    ------
    InputError
        If there is nothing there, an image is damaged, images differ in size, a class is empty or missing from the
        training images, or the whole is larger than `MAX_BYTES`.
    """
    with listed_images(root) as files:
        classes = _classes(files, root)
        stamps = _LAYOUT + "\n".join(f"{file.place} {file.stamp}" for file in sorted(files, key=_place))
        key = sha256(stamps.encode(errors="surrogateescape")).hexdigest()
        arrays = load_cached(root, key)
        if arrays is None:
            arrays = _decode(files, classes, progress)
            store_cached(root, key, arrays)
    parts = {}
    for part in PARTS:
        if f"{part}_labels" in arrays:
            parts[part] = Images(images=arrays[f"{part}_images"], labels=arrays[f"{part}_labels"])
    return ImageTree(parts=parts, classes=classes)


def _place(file: ImageFile) -> str:
    return file.place


def _classes(files: Sequence[ImageFile], root: Path) -> tuple[str, ...]:
    if not files:
        raise InputError(f"{root} has no images; give a folder of train/CLASS/*.jpg (or .png ...) and test/CLASS/*.jpg")
    found = {part: {file.class_name for file in files if file.part == part} for part in PARTS}
    if not found["train"]:
        raise InputError(f"{root} has no train/CLASS folders with images; the training images must lie there")
    for part in PARTS:
        unknown = sorted(found[part] - found["train"])
        if unknown:
            raise InputError(f"{root}: class {unknown[0]!r} is in {part}/ but not in train/; it cannot be learnt")
    return tuple(sorted(found["train"]))


def _decode(files: Sequence[ImageFile], classes: tuple[str, ...], progress: Progress) -> dict[str, np.ndarray]:
    """Arrays ``{part}_images`` [N, 3, H, W] and ``{part}_labels`` [N] of every part that has files."""
    label_of = {name: label for label, name in enumerate(classes)}
    arrays: dict[str, np.ndarray] = {}
    rank: dict[str, int] = {}
    first: tuple[str, tuple[int, ...]] | None = None
    for part in PARTS:
        members = sorted((file for file in files if file.part == part), key=_place)
        rank |= {file.place: index for index, file in enumerate(members)}
        if members:
            arrays[f"{part}_labels"] = np.array([label_of[file.class_name] for file in members], dtype=np.int64)
    for done, file in enumerate(files):
        pixels = _decode_one(file)
        if first is None:
            first = (file.where, pixels.shape)
            _allocate(arrays, pixels, len(files), file.where)
        if pixels.shape != first[1]:
            raise InputError(
                f"images differ in size: {first[0]} is {_size(first[1])}, {file.where} is {_size(pixels.shape)} "
                "(width x height); resize them to one size"
            )
        arrays[f"{file.part}_images"][rank[file.place]] = pixels.transpose(2, 0, 1)
        if done % _PROGRESS_EVERY == 0:
            progress("decode images", done, len(files))
    progress("decode images", len(files), len(files))
    return arrays


def _allocate(arrays: dict[str, np.ndarray], pixels: np.ndarray, count: int, where: str) -> None:
    total_bytes = count * pixels.size
    if total_bytes > MAX_BYTES:
        raise InputError(
            f"{count} images of {_size(pixels.shape)} (as {where}) need {total_bytes / 2**30:.1f} GiB in memory, "
            f"at most {MAX_BYTES >> 30} are allowed; give fewer or smaller images"
        )
    height, width, channels = pixels.shape
    for part in PARTS:
        if f"{part}_labels" in arrays:
            shape = (len(arrays[f"{part}_labels"]), channels, height, width)
            arrays[f"{part}_images"] = np.empty(shape, dtype=np.uint8)


def _decode_one(file: ImageFile) -> np.ndarray:
    """uint8 [H, W, 3]."""
    content = file.read()
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{file.where} has pixels of mode {image.mode}; give images of 8 bits a channel")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise InputError(f"{file.where} is not an image; replace or remove it") from None
    except _DAMAGED_IMAGE as error:
        raise InputError(f"{file.where} is damaged ({' '.join(str(error).split())}); replace or remove it") from None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
