"""Reference profiles: of machines that were measured once, to plan for a machine that one does not have."""

from __future__ import annotations

import difflib
from pathlib import Path

from ..kernels.errors import InputError

FOLDER = Path(__file__).parent / "reference"
PREFIX = "ref:"
ENDING = ".json.gz"


def reference_names(folder: Path = FOLDER) -> tuple[str, ...]:
    """Names of the reference profiles, sorted."""
    return tuple(sorted(path.name.removesuffix(ENDING) for path in folder.glob(f"*{ENDING}")))


def profile_file(spec: str | Path, *, folder: Path = FOLDER) -> Path:
    """The file that a profile's SPEC names: ``ref:NAME``, else a path.

    Raises
    ------
    InputError
        If there is no reference profile of that name; the message lists those there are.
    """
    text = str(spec)
    if not text.startswith(PREFIX):
        return Path(spec)
    name, names = text.removeprefix(PREFIX), reference_names(folder)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        raise InputError(
            f"no reference profile is named {name!r}"
            + (f" (did you mean {PREFIX}{close[0]}?)" if close else "")
            + f"; there are: {', '.join(PREFIX + known for known in names) or 'none'}; or give the path of a profile"
        )
    return folder / f"{name}{ENDING}"
