"""Pytest plugin and module: use the native module of another build, named by SPARSEPLAN_TEST_NATIVE (a folder).

``make sanitize`` and ``make race`` run tests with it, without touching the installed module.
"""

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

import torch  # noqa: F401  # before the module: it must share torch's OpenMP runtime

NAME = "sparseplan.kernels._native"

(_file,) = Path(os.environ["SPARSEPLAN_TEST_NATIVE"]).glob("_native*.so")
_loader = importlib.machinery.ExtensionFileLoader(NAME, str(_file))
_spec = importlib.util.spec_from_file_location(NAME, _file, loader=_loader)
assert _spec is not None
sys.modules[NAME] = importlib.util.module_from_spec(_spec)
_loader.exec_module(sys.modules[NAME])
