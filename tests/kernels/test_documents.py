"""Documents: whole or not at all, and never a foreign one taken for ours."""

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from sparseplan.kernels import documents
from sparseplan.kernels.documents import (
    read_document,
    read_records,
    read_text,
    require_writable,
    sha256_of,
    write_atomic,
    write_document,
    write_records,
    write_text,
)
from sparseplan.kernels.errors import InputError


class Note(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[3] = 3
    title: str
    pages: int


def _lift_1(content: dict[str, Any]) -> dict[str, Any]:
    return {"schema_version": 2, "title": content["name"]}


def _lift_2(content: dict[str, Any]) -> dict[str, Any]:
    return content | {"schema_version": 3, "pages": 1}


MIGRATIONS = {1: _lift_1, 2: _lift_2}


def _read(path: Path) -> Note:
    return read_document(path, Note, kind="note", migrations=MIGRATIONS)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    write_document(path, Note(title="ä", pages=2))
    assert _read(path) == Note(title="ä", pages=2)
    assert len(sha256_of(path)) == 64


def test_old_version_is_lifted_step_by_step(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    path.write_text('{"schema_version": 1, "name": "old"}')
    assert _read(path) == Note(title="old", pages=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 3, "title": "x", "pa', "not valid JSON .* it may be truncated"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"schema_version": 4, "title": "x", "pages": 1}', "schema version 4, this sparseplan reads up to 3; upgrade"),
        ('{"schema_version": 0, "title": "x"}', "schema version 0, which is no longer read"),
        ('{"schema_version": 1, "foreign": "x"}', "not a valid note of schema version 1"),
        ('{"title": "x", "pages": 1}', "no schema_version"),
        ('{"schema_version": true, "title": "x", "pages": 1}', "no schema_version"),
        ("[1, 2]", "no schema_version"),
        ('{"schema_version": 3, "title": "x"}', "not a valid note: pages: Field required"),
        ('{"schema_version": 3, "title": "x", "pages": 1, "more": 2}', "not a valid note: more"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "note.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        _read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_binary_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        _read(tmp_path / "none.json")
    with pytest.raises(InputError, match="Is a directory"):
        _read(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        _read(tmp_path / "binary")


def test_unwritable_targets(tmp_path: Path) -> None:
    note = Note(title="x", pages=1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "none" / "note.json", tmp_path / "folder", tmp_path / "file" / "note.json"):
        with pytest.raises(InputError, match="cannot write"):
            write_document(target, note)
        with pytest.raises(InputError, match="cannot write"):
            require_writable(target)
    require_writable(tmp_path / "new.json")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    path.write_text("old")

    def interrupted(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, interrupted)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_records(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    # U+2028 ends a line for str.splitlines(), but not for JSON.
    notes = (Note(title="a\u2028b", pages=1), Note(title="c", pages=2))
    write_records(path, notes)
    assert read_records(path, Note, kind="note") == notes
    path.write_text(path.read_text() + "\n\n  \n")
    assert read_records(path, Note, kind="note") == notes
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty; give at least one note"):
        read_records(path, Note, kind="note")


def test_a_name_that_ends_in_gz_is_compressed_and_the_same_each_time(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json.gz", tmp_path / "b.json.gz"]
    for path in paths:
        write_text(path, "some text, " * 100)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 100
    assert read_text(paths[0], kind="text") == "some text, " * 100
    # By its content, not its name.
    renamed = paths[0].rename(tmp_path / "c.json")
    assert read_text(renamed, kind="text").startswith("some")


def test_damaged_gzip_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json.gz"
    write_text(path, "some text, " * 100)
    whole = path.read_bytes()
    for damaged in (whole[:-12], whole[:20], whole[:-8] + b"\0" * 8):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"p\.json\.gz is not a text: a damaged gzip file .*copy or make it again"):
            read_text(path, kind="text")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 1 << 20)
    for name in ("bomb.json.gz", "long.json"):
        write_text(tmp_path / name, "0" * ((1 << 20) + 1))
        with pytest.raises(InputError, match=f"{name} is not a text: it holds more than 1 MiB"):
            read_text(tmp_path / name, kind="text")
    assert (tmp_path / "bomb.json.gz").stat().st_size < 2000
