"""IDX, the file format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..kernels.errors import InputError

_UNSIGNED_BYTE = 0x08
_MAX_BYTES = 2 << 30
_CHUNK_BYTES = 1 << 20


def read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzip-compressed (``.gz``) or not.

    Parameters
    ----------
    dimensions : int
        How many axes it must have: 3 for images, 1 for labels.

    Returns
    -------
    array
        uint8, of the shape that the file states.

    Raises
    ------
    InputError
        If the file cannot be read, is not such an IDX file, or holds fewer or more bytes than its header states.

    References
    ----------
    LeCun, Cortes and Burges, The MNIST database, section "File formats".
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(file, path, dimensions)
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is not a gzip file ({error}); get it again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _parse(file: BinaryIO | gzip.GzipFile, path: Path, dimensions: int) -> np.ndarray:
    header_bytes = 4 + 4 * dimensions
    header = _read_up_to(file, header_bytes)
    if header[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]) and len(header) >= 4:
        raise InputError(
            f"{path} is not an IDX file of {dimensions} axes of bytes: it starts with {header[:4].hex()}, "
            f"not 0000{_UNSIGNED_BYTE:02x}{dimensions:02x}"
        )
    if len(header) < header_bytes:
        raise InputError(f"{path} is truncated: its header has {len(header)} of {header_bytes} bytes; get it again")
    shape = tuple(int(extent) for extent in np.frombuffer(header, dtype=">u4", offset=4))
    expected = math.prod(shape)
    if expected > _MAX_BYTES:
        raise InputError(f"{path} states {expected} bytes of content; at most {_MAX_BYTES} are read into memory")
    content = _read_up_to(file, expected + 1)
    if len(content) != expected:
        seen = "more" if len(content) > expected else str(len(content))
        raise InputError(f"{path}: expected {expected} bytes after the header, found {seen}; get the file again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_up_to(file: BinaryIO | gzip.GzipFile, count: int) -> bytes:
    """At most `count` bytes, fewer where the file, or its compressed stream, ends before."""
    content = bytearray()
    while len(content) < count:
        try:
            chunk = file.read(min(count - len(content), _CHUNK_BYTES))
        except EOFError:
            break
        if not chunk:
            break
        content += chunk
    return bytes(content)
