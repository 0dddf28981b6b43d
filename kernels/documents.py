"""Reading and writing the documents of the project: whole or not at all, and never a foreign one taken for ours."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import InputError

Document = TypeVar("Document", bound=BaseModel)
Record = TypeVar("Record")
Migration = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the JSON of one schema version into that of the next."""


COMPRESSED = ".gz"
GZIP_MAGIC = b"\x1f\x8b"
MOST_BYTES = 256 << 20
"""Far above any document: a machine profile of the full budget takes some 20 MB."""


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: a reader never sees half a file.

    Raises
    ------
    InputError
        If the file cannot be written (missing folder, no permission, full disk).
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; "
            "give a path in an existing, writable folder with free space"
        ) from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write text atomically, compressed where the name ends in ``.gz``; see `write_atomic`."""
    content = text.encode()
    if path.suffix == COMPRESSED:
        # Without the time of writing: the same document gives the same file.
        content = gzip.compress(content, mtime=0)
    write_atomic(path, lambda temporary: _write_bytes(temporary, content))


def write_document(path: Path, document: BaseModel) -> None:
    """Write a document as indented JSON, atomically."""
    write_text(path, document.model_dump_json(indent=1) + "\n")


def write_records(path: Path, records: Iterable[BaseModel]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_document(
    path: Path, document: type[Document], *, kind: str, migrations: Mapping[int, Migration] | None = None
) -> Document:
    """Read a versioned document, migrating older versions step by step.

    Parameters
    ----------
    kind : str
        What the file should be, for messages ("machine profile", "plan").
    migrations : mapping
        From an old schema version to the function that lifts it to the next.

    Raises
    ------
    InputError
        If the file is missing, truncated, of another kind, or of a newer schema version.
    """
    text = read_text(path, kind=kind)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a {kind}: not valid JSON ({error}); it may be truncated, make it again"
        ) from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise InputError(f"{path} is not a {kind}: it has no schema_version; give a file that sparseplan wrote")
    current = document.model_fields["schema_version"].default
    if version > current:
        raise InputError(
            f"{path} is a {kind} of schema version {version}, this sparseplan reads up to {current}; upgrade sparseplan"
        )
    while version < current:
        if migrations is None or version not in migrations:
            raise InputError(f"{path} is a {kind} of schema version {version}, which is no longer read; make it again")
        try:
            content = migrations[version](content)
        except (LookupError, TypeError, ValueError, AttributeError):
            # An old document that lacks what the migration moves, or a foreign one with a field schema_version.
            raise InputError(f"{path} is not a valid {kind} of schema version {version}; make it again") from None
        version += 1
    try:
        return document.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise InputError(f"{path} is not a valid {kind}: {_first_error(error)}; make it again") from None
    except InputError as error:
        raise InputError(f"{path} is not a valid {kind}: {error}") from None


def read_records(path: Path, record: type[Record], *, kind: str) -> tuple[Record, ...]:
    """Read one JSON object a line; blank lines are passed over.

    Raises
    ------
    InputError
        If the file is missing, empty, or a line is not such a record; the message names the line.
    """
    adapter: TypeAdapter[Record] = TypeAdapter(record)
    records = []
    # Not splitlines(): JSON may hold the other line separators of Unicode as they are.
    for number, line in enumerate(read_text(path, kind=kind).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(adapter.validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: not a {kind}: {_first_error(error)}") from None
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
    if not records:
        raise InputError(f"{path} is empty; give at least one {kind}, one JSON object a line")
    return tuple(records)


def read_text(path: Path, *, kind: str) -> str:
    """The text of a file, decompressed where it is a gzip file, whatever its name.

    Raises
    ------
    InputError
        If it is missing, unreadable, damaged, not text, or larger than any such file.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            file.seek(0)
            # Read up to the limit and no further: a small file may claim to hold terabytes.
            content = (gzip.GzipFile(fileobj=file) if compressed else file).read(MOST_BYTES + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path} is not a {kind}: a damaged gzip file ({error}); copy or make it again") from None
    except OSError as error:
        raise InputError(f"cannot read {kind} {path}: {error.strerror}; give the path of an existing file") from None
    if len(content) > MOST_BYTES:
        raise InputError(
            f"{path} is not a {kind}: it holds more than {MOST_BYTES >> 20} MiB; give a file that sparseplan wrote"
        )
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a {kind}: not a text file; give a file that sparseplan wrote") from None


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"]) or "the whole object"
    others = error.error_count() - 1
    return f"{where}: {first['msg']}" + (f" (and {others} more)" if others else "")


def require_writable(path: Path) -> None:
    """Check that a file can be written there, before long work whose result it shall hold.

    Raises
    ------
    InputError
        If the folder is missing or not writable, or the path is a folder.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the path of a file")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; give a path in an existing, writable folder"
        ) from None


def sha256_of(path: Path) -> str:
    """Hex digest of a file, to tell whether it is still the one a document was made from.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give the path of an existing file") from None
