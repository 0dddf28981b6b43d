"""Reference profiles: found by name, small, whole, and listed where the name is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest
from profile_samples import small_profile

from sparseplan.kernels.errors import InputError
from sparseplan.profiles.references import ENDING, FOLDER, profile_file, reference_names
from sparseplan.profiles.store import load_profile, save_profile

MOST_BYTES = 1_000_000


def test_there_is_at_least_one() -> None:
    assert reference_names()


@pytest.mark.parametrize("name", reference_names())
def test_each_loads_and_is_small(name: str) -> None:
    path = profile_file(f"ref:{name}")
    assert path.stat().st_size < MOST_BYTES
    assert load_profile(path).samples


def test_a_path_stays_a_path() -> None:
    assert profile_file("some/profile.json") == Path("some/profile.json")
    assert profile_file(Path("profile.json")) == Path("profile.json")


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    for name in ("epyc-2c", "xeon-8c"):
        save_profile(tmp_path / f"{name}{ENDING}", small_profile())
    assert profile_file("ref:xeon-8c", folder=tmp_path) == tmp_path / "xeon-8c.json.gz"
    with pytest.raises(
        InputError, match=r"named 'xeon-9c' \(did you mean ref:xeon-8c\?\); there are: ref:epyc-2c, ref"
    ):
        profile_file("ref:xeon-9c", folder=tmp_path)
    with pytest.raises(InputError, match="there are: none"):
        profile_file("ref:x", folder=tmp_path / "absent")


def test_a_name_is_no_way_out_of_the_folder() -> None:
    with pytest.raises(InputError, match="no reference profile"):
        profile_file(f"ref:../{FOLDER.name}/{reference_names()[0]}")
