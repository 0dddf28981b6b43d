"""A compiled network as a file that other programs run: torch's .pt2, ONNX, or OpenVINO; checked after writing."""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.documents import write_atomic
from ..kernels.errors import InputError, SparseplanError, UnsupportedError
from . import swapped_layer
from .swapped_layer import SwappedLayer

ERROR_LIMIT = 1e-3
"""Largest difference of outputs over the largest output: float32 rounding through ~100 layers, as `bench` has it."""


def export_network(model: nn.Module, example: Tensor, path: Path) -> float:
    """Write a network in the form that the suffix names, run what was written, and compare.

    Parameters
    ----------
    model : nn.Module
        As `compile_model` gives it.
    example : Tensor
        One batch; the file is for this shape.
    path : Path
        ``.pt2`` (torch.export; running it needs sparseplan), ``.onnx`` or ``.xml`` (OpenVINO).

    Returns
    -------
    float
        Largest difference between written and given network, over the largest output.

    Raises
    ------
    InputError
        If the suffix is another, or the file cannot be written.
    UnsupportedError
        If the form cannot hold the kernels of the plan, or its package is not installed.
    SparseplanError
        If the written network computes something else.
    """
    write = FORMATS.get(path.suffix)
    if write is None:
        raise InputError(f"cannot export to {path}: unknown kind {path.suffix!r}; allowed are {', '.join(FORMATS)}")
    if path.suffix in PLAIN_FORMATS:
        _refuse_kernels(model, PLAIN_FORMATS[path.suffix])
        # These programs run on the CPU here, whatever the plan was made for.
        model, example = copy.deepcopy(model).cpu(), example.cpu()
    with torch.no_grad():
        expected = model(example)
        run = write(model, example, path)
        error = float((run(example).float() - expected).abs().max() / expected.abs().max())
    # Written so that NaN fails.
    if not error <= ERROR_LIMIT:
        raise SparseplanError(
            f"{path} computes something else than the network it was made from: they differ by {error:.2g} of the "
            f"largest output, allowed is {ERROR_LIMIT:g}; this is a defect of the exporter, do not use the file"
        )
    return error


def load_program(path: Path) -> nn.Module:
    """The network of a ``.pt2`` file; its layers are packed for this machine at their first call.

    Raises
    ------
    InputError
        If the file is missing or no such program.
    """
    assert swapped_layer  # its import registers the operator that the program calls
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes on torch's own internals, nothing a user could act on
            return torch.export.load(path).module()
    except FileNotFoundError:
        raise InputError(f"cannot read {path}: no such file; give the path of an existing file") from None
    except (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is no program of torch.export ({reason}); export it again") from None


def _write_pt2(model: nn.Module, example: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        program = torch.export.export(model, (example,), strict=False)
        write_atomic(path, lambda temporary: _save_pt2(program, temporary))
    return load_program(path)


def _save_pt2(program: torch.export.ExportedProgram, temporary: Path) -> None:
    # torch warns of names that do not end in .pt2; a handle has no name.
    with temporary.open("wb") as file:
        torch.export.save(program, file)


def _write_onnx(model: nn.Module, example: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    onnx = _optional("onnx", extra="onnx")
    _optional("onnxscript", extra="onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        program = torch.onnx.export(model, (example,), dynamo=True, verbose=False)
    assert program is not None
    write_atomic(path, lambda temporary: program.save(temporary, external_data=False))
    evaluator = import_module("onnx.reference").ReferenceEvaluator(onnx.load(path))
    name = evaluator.input_names[0]
    return lambda x: torch.from_numpy(np.asarray(evaluator.run(None, {name: x.numpy()})[0]))


def _write_openvino(model: nn.Module, example: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    openvino = _optional("openvino", extra="openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        program = torch.export.export(model, (example,), strict=False)
        converted = openvino.convert_model(program)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        openvino.save_model(converted, Path(folder) / path.name, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            os.replace((Path(folder) / path.name).with_suffix(suffix), path.with_suffix(suffix))
    compiled = openvino.compile_model(openvino.Core().read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return partial(_run_openvino, compiled)


def _run_openvino(compiled: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(np.array(compiled(x.numpy())[0]))


def _refuse_kernels(model: nn.Module, form: str) -> None:
    swapped = [name for name, module in model.named_modules() if isinstance(module, SwappedLayer)]
    if swapped:
        raise UnsupportedError(
            f"{form} cannot hold the kernels of {len(swapped)} layers ({', '.join(swapped[:3])}"
            f"{', ...' if len(swapped) > 3 else ''}); export to .pt2, or plan with patterns that only shrink layers"
        )


def _optional(name: str, *, extra: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UnsupportedError(
            f"{name} cannot be imported ({error}); install it (pip install 'sparseplan[{extra}]') or export to .pt2"
        ) from None


FORMATS: Mapping[str, Callable[[nn.Module, Tensor, Path], Callable[[Tensor], Tensor]]] = {
    ".pt2": _write_pt2,
    ".onnx": _write_onnx,
    ".xml": _write_openvino,
}
"""By suffix: what writes a file and gives back how to run it."""
PLAIN_FORMATS: Mapping[str, str] = {".onnx": "ONNX", ".xml": "OpenVINO"}
"""Those that hold torch's own operators alone."""
