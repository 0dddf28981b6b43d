"""Reports of plans that were measured and corrected, as files."""

import json
from pathlib import Path

import pytest

from sparseplan.kernels.errors import InputError
from sparseplan.runtime.store import load_loop, save_loop

GOLDEN = Path(__file__).with_name("golden_loop_v1.json")


def test_the_golden_file_of_version_1_is_read_and_written_as_version_2(tmp_path: Path) -> None:
    report = load_loop(GOLDEN)
    assert report.schema_version == 2
    assert report.outcome == "out of rounds"
    assert report.kept == 1, "the fastest, where the file does not say"
    save_loop(tmp_path / "report.json", report)
    assert load_loop(tmp_path / "report.json") == report


def test_a_report_of_version_1_that_says_what_it_kept_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**json.loads(GOLDEN.read_text()), "kept": 2}))
    assert load_loop(path).kept == 2


def test_a_newer_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**json.loads(GOLDEN.read_text()), "schema_version": 3}))
    with pytest.raises(InputError, match="schema version 3"):
        load_loop(path)
