"""sparseplan: is pruning worth it on this machine? Plan it, train it, run it, prove it.

Each command of the command line is a function here, with the same name and defaults. Importing this package loads
neither torch nor triton; the first use of a function does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .commands.bench import bench
    from .commands.demo import demo
    from .commands.explain import explain
    from .commands.export import export
    from .commands.extend import extend
    from .commands.load import load
    from .commands.measure import measure
    from .commands.plan import plan
    from .commands.predict import predict
    from .commands.profile import profile
    from .commands.report import report
    from .commands.show import show
    from .commands.train import train
    from .commands.tune import tune
    from .commands.validate import validate
    from .kernels.errors import InputError, SparseplanError, UnsupportedError
    from .runtime.compile import compile_model as compile
    from .trainer.regulariser import PruneOptions, prepare

__version__ = "0.1.0"

_COMMANDS = (
    "bench",
    "demo",
    "explain",
    "export",
    "extend",
    "load",
    "measure",
    "plan",
    "predict",
    "profile",
    "report",
    "show",
    "train",
    "tune",
    "validate",
)
_HOME_OF = {name: (f".commands.{name}", name) for name in _COMMANDS} | {
    "compile": (".runtime.compile", "compile_model"),
    "prepare": (".trainer.regulariser", "prepare"),
    "PruneOptions": (".trainer.regulariser", "PruneOptions"),
    "InputError": (".kernels.errors", "InputError"),
    "SparseplanError": (".kernels.errors", "SparseplanError"),
    "UnsupportedError": (".kernels.errors", "UnsupportedError"),
}

__all__ = [
    "InputError",
    "PruneOptions",
    "SparseplanError",
    "UnsupportedError",
    "bench",
    "compile",
    "demo",
    "explain",
    "export",
    "extend",
    "load",
    "measure",
    "plan",
    "predict",
    "prepare",
    "profile",
    "report",
    "show",
    "train",
    "tune",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sparseplan' has no attribute {name!r}")
    module, attribute = _HOME_OF[name]
    return getattr(importlib.import_module(module, __name__), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
