"""Finds the image files of a tree PART/CLASS/FILE, in a folder or inside a tar archive."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..kernels.errors import InputError

PARTS = ("train", "val", "test")
MAX_BYTES = 2 << 30
"""Largest data set that is held in memory."""
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGED_ARCHIVE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One image, not yet read."""

    where: str
    """For messages."""
    place: str
    """Path inside the tree; orders the images."""
    part: str
    class_name: str
    stamp: str
    """Changes when the file does."""
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Whether a path is named as a tar archive."""
    return path.name.endswith(_ARCHIVE_SUFFIXES)


@contextmanager
def listed_images(root: Path) -> Iterator[list[ImageFile]]:
    """The images of a folder or archive, in the order in which reading them is cheap; an archive is open meanwhile.

    Raises
    ------
    InputError
        If there is no folder or archive, it cannot be read or is damaged (also where reading meets the damage), or a
        class has no images.
    """
    if root.is_dir():
        try:
            files = _list_folder(root)
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}; make it readable") from None
        yield files
    elif root.is_file() and is_archive(root):
        try:
            with tarfile.open(root, "r:*") as archive:
                yield _list_archive(root, archive)
        except _DAMAGED_ARCHIVE as error:
            # tarfile lists every compression that it tried on lines of their own.
            first_line = next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
            raise InputError(f"{root} is not a whole tar archive ({first_line}); get it again") from None
    else:
        raise InputError(f"no folder or tar archive {root}; give the folder that holds train/CLASS/*.jpg")


def _list_folder(root: Path) -> list[ImageFile]:
    files = []
    for part in PARTS:
        if not (root / part).is_dir():
            continue
        folders = (entry for entry in (root / part).iterdir() if entry.is_dir() and not entry.name.startswith("."))
        for class_folder in sorted(folders):
            members = [path for path in sorted(class_folder.rglob("*")) if _is_image(PurePosixPath(path))]
            if not members:
                raise InputError(f"{class_folder} has no images; put some there or remove the folder")
            files += [_file_on_disk(path, root, part, class_folder.name) for path in members]
    return files


def _file_on_disk(path: Path, root: Path, part: str, class_name: str) -> ImageFile:
    return ImageFile(
        where=str(path),
        place=path.relative_to(root).as_posix(),
        part=part,
        class_name=class_name,
        stamp=_stamp(path),
        read=lambda: _read_file(path),
    )


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; make it readable") from None


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _list_archive(root: Path, archive: tarfile.TarFile) -> list[ImageFile]:
    stamp = _stamp(root)
    # By path: of a member that was appended twice, tar takes the last.
    files: dict[str, ImageFile] = {}
    total_bytes = 0
    for member in archive.getmembers():
        path = PurePosixPath(member.name)
        place = next((index for index, step in enumerate(path.parts) if step in PARTS), None)
        if place is None or len(path.parts) < place + 3 or not member.isfile() or not _is_image(path):
            continue
        if path.parts[place + 1].startswith("."):
            continue
        total_bytes += member.size
        if total_bytes > MAX_BYTES:
            raise InputError(f"{root} holds more than {MAX_BYTES >> 30} GiB of images; give a smaller set")
        files[member.name] = ImageFile(
            where=f"{root}!{member.name}",
            place=member.name,
            part=path.parts[place],
            class_name=path.parts[place + 1],
            stamp=stamp,
            read=_member_reader(archive, member),
        )
    return list(files.values())


def _member_reader(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        content = archive.extractfile(member)
        return content.read() if content else b""

    return read


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
