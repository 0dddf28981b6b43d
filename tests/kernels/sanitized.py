"""Build the native module under sanitizers, in a folder of its own, and run it (`make sanitize`, `make race`).

``address``: AddressSanitizer and UndefinedBehaviorSanitizer, over the tests of the native kernels.
``thread``: ThreadSanitizer, over `race_run.py`; the threads are then those of `std_threads.h`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS = (
    "test_registry.py",
    "test_registry_random.py",
    "test_channels.py",
    "test_compact_tiles.py",
    "test_flat_tiling.py",
    "test_half_precision.py",
    "test_tile_sparse.py",
    *sorted(path.name for path in HERE.glob("test_native_*.py")),
)
# -s: what a dying process says must not end in pytest's capture.
PYTEST = ["-m", "pytest", "-p", "other_native", "-q", "-x", "-s", *(str(HERE / name) for name in TESTS)]
ARGUMENTS = {"address": [*PYTEST, "-k", "not torch and not onednn"], "thread": [str(HERE / "race_run.py")]}
LIBRARIES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
OPTIONS = {
    # Python and torch keep memory until the process ends.
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # GCC 12's checker misreads the size of glibc's thread-local blocks of loaded libraries, and gives up.
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:intercept_tls_get_addr=0",
    # The module's thread-local memory is claimed when Python loads it: more than the loader keeps free unasked.
    "GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=65536",
}


def main() -> int:
    (kind,) = sys.argv[1:]
    folder = ROOT / "build" / f"sanitize-{kind}"
    _build(kind, folder)
    found_in = os.pathsep.join((str(HERE), str(HERE.parent)))
    environment = os.environ | OPTIONS | {"SPARSEPLAN_TEST_NATIVE": str(folder), "PYTHONPATH": found_in}
    # Through env(1): only the interpreter that runs the kernels needs them.
    command = ["env", f"LD_PRELOAD={' '.join(map(_path_of, LIBRARIES[kind]))}", sys.executable, *ARGUMENTS[kind]]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _path_of(library: str) -> str:
    command = [os.environ.get("CXX", "c++"), f"-print-file-name={library}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _build(kind: str, folder: Path) -> None:
    environment = os.environ | {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}
    configure = ["cmake", "-S", "kernels/native", "-B", str(folder), "-G", "Ninja", f"-DSPARSEPLAN_SANITIZE={kind}"]
    for command in ([*configure, f"-DPython_EXECUTABLE={sys.executable}"], ["cmake", "--build", str(folder)]):
        built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            raise SystemExit(f"sanitized build failed: {' '.join(command)}\n{built.stdout}{built.stderr}")


if __name__ == "__main__":
    sys.exit(main())
