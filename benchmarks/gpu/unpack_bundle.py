"""``unpack_bundle.py WHEELS FOLDER``: lay out the wheels of packages that this python lacks, for PYTHONPATH.

Runs before anything of sparseplan can be imported, and with the standard library alone. A package that this python has
already stays as it is, whatever its version, but for sparseplan itself.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

OWN = "sparseplan"
NEEDED = {
    "torch": "torch",
    "triton": "triton",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "pillow": "PIL",
}
"""Distributions and their modules that are not in the bundle unless asked for: large, and beside torch on most machines
with a GPU."""


def unpack(wheels: Path, folder: Path) -> list[str]:
    """Names of the distributions that were laid out."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    taken = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, python_tag = wheel.name.split("-")[0], wheel.stem.split("-")[-3]
        if name != OWN and _is_here(name):
            continue
        if tag not in python_tag.split(".") and "py3" not in python_tag.split(".") and "abi3" not in wheel.stem:
            raise SystemExit(f"{wheel.name} is not for this Python ({tag}); run 'make gpu-bundle' with that version")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        taken.append(name)
    return taken


def lacking(laid_out: list[str]) -> list[str]:
    """Distributions that are needed, but neither here nor laid out."""
    names = {name.lower().replace("_", "-") for name in laid_out}
    # By module: a nightly Triton, for one, has another distribution's name.
    return [name for name, module in NEEDED.items() if name not in names and find_spec(module) is None]


def _is_here(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    found = unpack(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(f"laid out: {', '.join(found) or 'nothing'}\n")
    if not _is_here(OWN) and OWN not in found:
        raise SystemExit(f"{sys.argv[1]} holds no wheel of {OWN}; run 'make gpu-bundle' where packages can be fetched")
    if missing := lacking(found):
        raise SystemExit(
            f"{sys.executable} lacks {', '.join(missing)}; use another Python (GPU_PYTHON), or carry them: "
            f"make gpu-bundle BUNDLE_ALSO='{' '.join(missing)}'"
        )
