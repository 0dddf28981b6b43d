"""SAS 1:2 with sparse activations: its CUDA C++ emulated and compiled ahead on any machine, and run on a GPU."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import pytest
import torch
from emulated_sas import EmulatedProgram, build_emulation
from gpu_samples import AMPERE, HOPPER
from kernel_agreement import check_agreement, fill_new_memory_with_nan
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

from sparseplan.kernels.errors import InputError
from sparseplan.kernels.gpu import sas_sparse
from sparseplan.kernels.gpu.machine import detect_gpu, gpu_machine
from sparseplan.kernels.gpu.sas_sparse import KERNELS, ROWS, Form
from sparseplan.kernels.inputs import LayerInputs, random_inputs
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.sas import expand_slots
from sparseplan.kernels.spec import KernelSpec
from sparseplan.kernels.weights import make_weight

FORMS = tuple((form, rows) for form in ROWS for rows in ROWS[form])
SHAPES = {
    "tail": Problem(op="linear", n=150, c_in=72, c_out=136),
    "bands": Problem(op="linear", n=1100, c_in=8, c_out=136),
    "deep": Problem(op="linear", n=3, c_in=264, c_out=8),
    "padded": Problem(op="conv2d", n=2, c_in=40, c_out=72, h_in=5, w_in=6, kernel=(3, 3), padding=(1, 1)),
    "strided": Problem(
        op="conv2d",
        n=3,
        c_in=8,
        c_out=24,
        h_in=9,
        w_in=8,
        kernel=(3, 2),
        stride=(2, 3),
        padding=(2, 1),
        dilation=(1, 2),
    ),
}
"""Tiles that end anywhere, more bands of tiles than one, and more steps than buffers."""


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


def _inputs(shape: Problem) -> LayerInputs:
    problem = shape.with_sparsity("sas:1:2", 0.5)
    generator = torch.Generator().manual_seed(1)
    inputs = random_inputs(problem, make_weight(problem, generator), generator)
    inputs.x[0, ::3] = 0.0
    return inputs


@pytest.mark.parametrize("late", [False, True], ids=["at_once", "late"])
@pytest.mark.parametrize(("form", "rows"), FORMS)
@pytest.mark.parametrize("name", SHAPES)
def test_emulated_against_reference(
    name: str, form: Form, rows: int, late: bool, emulation: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = replace(SHAPES[name], dtype="float16" if late else "bfloat16")
    inputs = _inputs(problem)
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


def test_weights_lie_as_each_step_reads_them() -> None:
    weight = torch.arange(2.0 * 16 * 80).reshape(16, 160, 1, 1)
    packed = sas_sparse.pack_columns(weight)
    assert packed.shape == (1, 3, 128, 8, 8)
    assert sorted(packed.abs().flatten().tolist())[-weight.numel() :] == sorted(weight.flatten().tolist())
    # Channel 9 is i = 1 of j = 4 of t = 0: row 33, whose chunk 0 lies at 1; odd slots are negated.
    assert packed[0, 0, 33, 1].tolist() == [1440.0, -1441.0, 1442.0, -1443.0, 1444.0, -1445.0, 1446.0, -1447.0]
    assert packed[0, 2, 33, 3 ^ 1].tolist() == [1592.0, -1593.0, 1594.0, -1595.0, 1596.0, -1597.0, 1598.0, -1599.0]
    assert not packed[0, :, 2].any()


@pytest.mark.parametrize("architecture", [80, 86, 90, 120])
def test_steps_fit_into_shared_memory(architecture: int) -> None:
    for form, rows in FORMS:
        held = sas_sparse.buffers_of(rows, architecture)
        assert held >= 3, (form, rows)
        assert held * sas_sparse.step_bytes(rows) <= sas_sparse.SHARED_BYTES[architecture] - 1024


def test_eligibility_names_the_obstacle() -> None:
    by_name = {kernel.name: kernel for kernel in KERNELS}
    old, new = by_name["conv2d_sas_bf16_sparse_nhwc__mma_sp"], by_name["conv2d_sas_bf16_sparse_nhwc__wgmma_sp"]
    problem = replace(SHAPES["padded"], dtype="bfloat16").with_sparsity("sas:1:2", 0.5)
    assert {old, new} <= set(REGISTRY)
    for kernel in (old, new):
        assert kernel.why_unsupported(problem, HOPPER) is None
        assert "groups" in str(kernel.why_unsupported(replace(problem, groups=4), HOPPER))
        assert "8 channels at once" in str(kernel.why_unsupported(replace(problem, c_in=41), HOPPER))
        assert "own sign" in str(kernel.why_unsupported(problem.with_sparsity("sas:1:4", 0.75), HOPPER))
        assert "float32" in str(kernel.why_unsupported(replace(problem, dtype="float32"), HOPPER))
    assert old.why_unsupported(problem, AMPERE) is None
    assert "needs sm_90a" in str(new.why_unsupported(problem, AMPERE))
    blackwell = gpu_machine((10, 0), has_triton=True, has_cusparselt=True)
    assert old.why_unsupported(problem, blackwell) is None
    assert "needs sm_90a" in str(new.why_unsupported(problem, blackwell))


def test_cost_counts_whole_tiles_and_steps() -> None:
    problem = Problem(op="linear", n=100, c_in=40, c_out=136, dtype="bfloat16").with_sparsity("sas:1:2", 0.5)
    cost = _kernel(problem, "wgmma_sp").cost(problem)
    assert cost.flop == 2 * 128 * 256 * 128
    assert cost.tasks == 2
    assert cost.bytes_moved == 2 * 100 * (40 + 136) + 2 * 256 * 128
    assert cost.bytes_streamed == 2 * 2 * (128 * 64 + 128 * 128) + 2 * 100 * 136
    large = replace(problem, n=4096, c_in=4096, c_out=4096)
    # Of a large product nothing is padding: the work of the dense layer of twice the inputs, at twice its rate.
    assert _kernel(large, "wgmma_sp").cost(large).flop == large.flop_dense_equiv


def test_tiles_shrink_until_there_are_enough() -> None:
    problem = Problem(op="linear", n=4096, c_in=64, c_out=4096).with_sparsity("sas:1:2", 0.5)
    assert sas_sparse.rows_of(problem, "wgmma_sp") == 256
    assert sas_sparse.rows_of(replace(problem, c_out=512), "mma_sp") == 64
    assert sas_sparse.rows_of(replace(problem, c_out=512), "wgmma_sp") == 128


def test_foreign_inputs_are_refused(emulation: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = _inputs(replace(SHAPES["tail"], dtype="bfloat16"))
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


@pytest.mark.needs_gpu
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_against_reference_on_a_gpu(kernel: KernelSpec) -> None:
    machine = detect_gpu()
    shapes = [*SHAPES.values(), Problem(op="linear", n=2300, c_in=520, c_out=2056)]
    shapes.append(replace(SHAPES["padded"], n=64, c_in=256, c_out=256, h_in=14, w_in=14))
    for shape in (replace(shape, dtype=kernel.dtype) for shape in shapes if shape.op == kernel.op):
        plain = _inputs(shape)
        if reason := kernel.why_unsupported(plain.problem, machine):
            pytest.skip(reason)
        added = plain.with_residual(torch.Generator().manual_seed(2))
        for inputs in (plain, added, replace(added, bias=None, relu=False)):
            check_agreement(kernel, inputs, device=torch.device("cuda"))
