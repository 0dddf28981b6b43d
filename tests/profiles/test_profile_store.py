"""Profiles on disk: round trip, old ones, foreign ones, absurd ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from profile_samples import small_profile

from sparseplan.kernels.errors import InputError
from sparseplan.profiles.schema import MachineProfile
from sparseplan.profiles.store import load_profile, save_profile

GOLDEN = Path(__file__).parent / "golden"


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    save_profile(path, small_profile())
    assert load_profile(path) == small_profile()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_golden_profiles_of_older_schemas_still_load(version: int) -> None:
    assert load_profile(GOLDEN / f"profile_schema_{version}.json") == small_profile()


def _changed(tmp_path: Path, **fields: object) -> Path:
    content = json.loads(small_profile().model_dump_json()) | fields
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    return path


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    newer = MachineProfile.model_fields["schema_version"].default + 1
    with pytest.raises(InputError, match=f"schema version {newer}.*upgrade"):
        load_profile(_changed(tmp_path, schema_version=newer))


def test_truncated_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    truncated = tmp_path / "t.json"
    truncated.write_text(small_profile().model_dump_json()[:200])
    with pytest.raises(InputError, match="truncated"):
        load_profile(truncated)
    with pytest.raises(InputError, match=r"absent\.json"):
        load_profile(tmp_path / "absent.json")
    with pytest.raises(InputError, match="extra"):
        load_profile(_changed(tmp_path, extra=1))


def test_absurd_numbers_are_refused(tmp_path: Path) -> None:
    ceilings = json.loads(small_profile().model_dump_json())["ceilings"]
    ceilings[0]["value"] = ceilings[0]["high"] = 1e30
    with pytest.raises(InputError, match=r"flop_per_s:fma_f32.*1e\+30"):
        load_profile(_changed(tmp_path, ceilings=ceilings))
    samples = json.loads(small_profile().model_dump_json())["samples"]
    samples[0]["time_s"]["median"] = samples[0]["time_s"]["high"] = 1e6
    with pytest.raises(InputError, match=r"conv2d_unstructured_f32_flat__avx2.*1e\+06"):
        load_profile(_changed(tmp_path, samples=samples))


def test_unordered_interval_is_refused(tmp_path: Path) -> None:
    samples = json.loads(small_profile().model_dump_json())["samples"]
    samples[0]["time_s"]["low"] = 1.0
    with pytest.raises(InputError, match="not believable"):
        load_profile(_changed(tmp_path, samples=samples))


def test_unwritable_output_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no_such_folder"):
        save_profile(tmp_path / "no_such_folder" / "p.json", small_profile())
