"""The CUDA C++ of SAS layers, emulated on the CPU: against the reference, and its places against CUTLASS's."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import pytest
import torch
from emulated_sas import EmulatedProgram, build_emulation
from gpu_samples import SAS_LAYERS, sas_inputs
from kernel_agreement import check_agreement, fill_new_memory_with_nan
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.gpu import sas_sparse
from sparseplan.kernels.gpu.sas_sparse import KERNELS, ROWS, Form
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.sas import expand_slots
from sparseplan.kernels.spec import KernelSpec

FORMS = tuple((form, rows) for form in ROWS for rows in ROWS[form])


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build_emulation(tmp_path_factory.mktemp("emulated"))


def _emulate(monkeypatch: pytest.MonkeyPatch, program: EmulatedProgram) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(sas_sparse, "program_for", lambda *_: program)
    monkeypatch.setattr(sas_sparse, "rows_of", lambda *_: program.rows)
    fill_new_memory_with_nan(monkeypatch)


def _kernel(problem: Problem, form: str) -> KernelSpec:
    return next(k for k in KERNELS if (k.op, k.dtype) == (problem.op, problem.dtype) and k.name.endswith(f"__{form}"))


@pytest.mark.parametrize("late", [False, True], ids=["at_once", "late"])
@pytest.mark.parametrize(("form", "rows"), FORMS)
@pytest.mark.parametrize("name", SAS_LAYERS)
def test_emulated_against_reference(
    name: str, form: Form, rows: int, late: bool, emulation: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = replace(SAS_LAYERS[name], dtype="float16" if late else "bfloat16")
    inputs = sas_inputs(problem)
    dtype = inputs.x.dtype
    _emulate(monkeypatch, EmulatedProgram(library=emulation, form=form, rows=rows, dtype=dtype, late=late, seed=rows))
    generator = torch.Generator().manual_seed(2)
    if late:
        inputs = replace(inputs.with_residual(generator), bias=None, relu=False)
    check_agreement(_kernel(problem, form), inputs)


def test_places_are_those_of_cutlass(emulation: ctypes.CDLL) -> None:
    """What the signs become in registers is what torch's conversion lays out for CUTLASS's 2:4 products."""
    x = torch.randn(32, 32, generator=torch.Generator().manual_seed(3)).bfloat16()
    x[x == 0] = 1.0
    kept, metadata = sparse_semi_structured_from_dense_cutlass(expand_slots(x, 2))
    assert torch.equal(kept, x.abs())
    # Of columns 32 at a time, words of rows g and g + 8: of their first and of their last 16 columns.
    words = metadata.reshape(-1).view(torch.int32).reshape(2, 8, 4)[:, :, :2].transpose(0, 1).flatten()
    places = torch.empty(32, dtype=torch.int32)
    emulation.sas_places(ctypes.c_void_p(x[:16].contiguous().data_ptr()), ctypes.c_void_p(places.data_ptr()))
    assert torch.equal(places, words)


def test_foreign_inputs_are_refused(emulation: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = sas_inputs(replace(SAS_LAYERS["tail"], dtype="bfloat16"))
    program = EmulatedProgram(library=emulation, form="mma_sp", rows=64, dtype=torch.bfloat16, late=False)
    _emulate(monkeypatch, program)
    kernel = _kernel(inputs.problem, "mma_sp")
    packed = inputs.pack(kernel)
    for wrong in (inputs.x[1:], inputs.x.double(), inputs.x.to("meta")):
        with pytest.raises(InputError, match="the packed problem needs"):
            kernel.run(packed, wrong)
    with pytest.raises(InputError, match="residual is"):
        kernel.run(packed, inputs.x, inputs.x)
    with pytest.raises(InputError, match="weight is"):
        kernel.pack(inputs.problem, inputs.weight[:, 1:], None, True)


def test_inputs_between_16_bytes_are_copied(emulation: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = sas_inputs(replace(SAS_LAYERS["deep"], dtype="bfloat16"))
    program = EmulatedProgram(library=emulation, form="mma_sp", rows=64, dtype=torch.bfloat16, late=False)
    _emulate(monkeypatch, program)
    packed = inputs.pack(_kernel(inputs.problem, "mma_sp"))
    memory = torch.zeros(inputs.x.numel() + 1, dtype=inputs.x.dtype)
    memory[1:] = inputs.x.flatten()
    between = memory[1:].reshape(inputs.x.shape)
    assert between.data_ptr() % 16
    assert torch.equal(sas_sparse.run_sparse(packed, between), sas_sparse.run_sparse(packed, inputs.x))
