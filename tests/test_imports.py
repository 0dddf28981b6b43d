"""Imports go down only, and the face is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEVELS = ("kernels", "profiles", "perfmodel", "planner", "trainer", "runtime", "reports")
"""From the bottom up; the face lies above all."""


def _imported_packages(source: Path, package: tuple[str, ...]) -> set[str]:
    """First-level names under `sparseplan` that a file imports; "" stands for the face itself."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            target = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*target, alias.name] for alias in node.names]
        else:
            continue
        found |= {name[1] if len(name) > 1 else "" for name in names if name[0] == "sparseplan"}
    return found


def _upward(source: Path, package: tuple[str, ...], allowed: tuple[str, ...]) -> set[str]:
    return _imported_packages(source, package) - set(allowed)


@pytest.mark.parametrize("level", LEVELS)
def test_imports_go_down_only(level: str) -> None:
    allowed = LEVELS[: LEVELS.index(level) + 1]
    sources = sorted((ROOT / level).rglob("*.py"))
    assert sources
    for source in sources:
        package = ("sparseplan", level, *source.relative_to(ROOT / level).parts[:-1])
        assert not _upward(source, package, allowed), f"{source.relative_to(ROOT)} imports upward"


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    source = tmp_path / "bad.py"
    package = ("sparseplan", "kernels")
    for line in ("from ..planner import schema", "import sparseplan.planner.schema", "from sparseplan import planner"):
        source.write_text(line)
        assert _upward(source, package, ("kernels",)) == {"planner"}, line
    source.write_text("from . import dense\nfrom .problem import Problem\nimport torch\nfrom .. import kernels")
    assert _upward(source, package, ("kernels",)) == set()


@pytest.mark.parametrize(
    "program", ["import sparseplan", "from sparseplan.cli import main; raise SystemExit(main(['--help']))"]
)
def test_the_face_loads_neither_torch_nor_triton(program: str) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr[-500:]
    modules = {line.rsplit("|", 1)[-1].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "sparseplan" in modules
    assert not {name for name in modules if name.split(".")[0] in ("torch", "triton")}
