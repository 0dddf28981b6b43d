"""Run-time detection, its override, and the ceilings of the machine."""

import os
import subprocess
import sys
from typing import get_args

import pytest
import torch

from sparseplan.kernels import _native
from sparseplan.kernels.cpu import ISA_VARIABLE, detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.flat_sparse import FLAT_VARIANTS, flat_shape
from sparseplan.kernels.native_layer import InstructionSet
from sparseplan.kernels.problem import Problem
from sparseplan.profiles.ceilings import Access

ISA = tuple(_native.isa_list())
FLAGS = {
    "avx2": {"avx2", "fma"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512vnni": {"avx512f", "avx512_vnni"},
    "avx512bf16": {"avx512f", "avx512_bf16", "avx512_vbmi2"},
    "avx512fp16": {"avx512f", "avx512_fp16"},
    "amx": {"avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"},
}


def cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((set(line.split(":")[1].split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return set()


@pytest.mark.skipif(not cpu_flags(), reason="the system lists no CPU flags")
def test_detection_agrees_with_the_operating_system() -> None:
    assert ("baseline", *(name for name, needed in FLAGS.items() if needed <= cpu_flags())) == ISA


def test_no_override_means_all() -> None:
    machine = detect_machine({})
    assert machine.isa == ISA
    assert machine.device == "cpu"
    for operator in machine.torch_ops:
        library, name = operator.split("::")
        assert hasattr(getattr(torch.ops, library), name)


@pytest.mark.parametrize("cap", ISA)
def test_override_caps(cap: str) -> None:
    assert detect_machine({ISA_VARIABLE: cap}).isa == ISA[: ISA.index(cap) + 1]


@pytest.mark.parametrize("cap", ["avx3", "", "AVX2"])
def test_override_must_name_an_instruction_set(cap: str) -> None:
    with pytest.raises(InputError, match="allowed: baseline"):
        detect_machine({ISA_VARIABLE: cap})


def test_override_is_read_from_the_environment() -> None:
    script = "from sparseplan.kernels.cpu import detect_machine; print(*detect_machine().isa)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {ISA_VARIABLE: "baseline"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["baseline"]


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="the system lists no loaded libraries")
def test_kernels_share_the_openmp_runtime_of_torch() -> None:
    # In a process of its own: scikit-learn, where a test before this one loaded it, brings another runtime along.
    script = (
        "from sparseplan.kernels import registry\n"
        "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    (runtime,) = done.stdout.splitlines()
    assert os.path.dirname(runtime).endswith(os.path.join("torch", "lib"))


@pytest.mark.parametrize(
    "isa", [isa for isa in FLAT_VARIANTS if isa.name in ISA], ids=lambda isa: f"{isa.name}x{isa.lanes}"
)
def test_packing_refuses_what_would_leave_memory(isa: InstructionSet) -> None:
    problem = Problem(op="conv2d", n=1, c_in=2, c_out=3, h_in=4, w_in=4, pattern="unstructured", sparsity=0.5)
    shape = flat_shape(problem, isa, interleaved=False)
    sizes = {name: getattr(shape, name) for name in ("images", "phase_floats", "channel_floats")}
    sizes |= {"rows": shape.phases.rows, "pitch": shape.phases.pitch}
    sizes |= {"area_rows": shape.area.rows, "area_columns": shape.area.columns, "copies_input": shape.copies_input}
    sizes |= {"tile_rows": shape.tiling.tile.rows, "tile_columns": shape.tiling.tile.columns}
    sizes |= {"k_block": shape.tiling.k_block, "c_blocks": shape.tiling.c_blocks}
    sizes |= {"n": 1, "c_in": 2, "h_in": 4, "w_in": 4, "c_out": 3, "h_out": 4, "w_out": 4}
    sizes |= {"stride_h": 1, "stride_w": 1, "pad_h": 0, "pad_w": 0}
    weight, offsets = torch.ones(3, 2).numpy(), torch.tensor([0, shape.channel_floats]).to(torch.uint32).numpy()

    def pack(offset_change: int = 0, **changes: int) -> None:
        _native.FlatSparse(
            isa=isa.name,
            lanes=isa.lanes,
            shape=_native.FlatShape(**(sizes | changes)),
            phases_h=[0],
            phases_w=[0],
            weight=weight,
            tap_offset=offsets + offsets.dtype.type(offset_change),
            block_taps=2,
            groups=1,
            group_offset=0,
            bias=None,
            relu=False,
        )

    pack()
    for message, wrong in {
        "registers": {"tile_columns": isa.max_tile + 1},
        "fill vectors": {"images": isa.lanes + 1},
        "cover": {"area_columns": shape.area.columns + 1},
        "positive": {"k_block": 0},
        "leave": {"offset_change": 64},
        "block_taps": {"c_blocks": 2},
    }.items():
        with pytest.raises(ValueError, match=message):
            pack(**wrong)


def test_ceilings_are_plausible() -> None:
    fma = _native.peak_flop_per_s("fma_f32", 0.01, 1)
    assert fma is not None
    assert 1e8 < fma < 2e12
    for unit, isa in (
        ("fma_f16", "avx512fp16"),
        ("dot_bf16", "avx512bf16"),
        ("dot_int8", "avx512vnni"),
        ("tile_bf16", "amx"),
        ("tile_int8", "amx"),
    ):
        rate = _native.peak_flop_per_s(unit, 0.01, 1)
        assert (rate is not None) == (isa in _native.isa_list()), unit
        assert rate is None or 1e8 < rate < 1e14, unit
    for access in get_args(Access):
        for size, threads in ((16 * 1024, 1), (16 * 1024 * 1024, 2)):
            rates = _native.bandwidth_byte_per_s(access, size, 0.002, threads, 3)
            assert len(rates) == 3
            assert all(1e8 < rate < 1e13 for rate in rates)
    assert 0.0 < _native.parallel_region_latency_s(2) < 1.0
    assert 1e-9 < _native.timer_latency_s() < 1e-4
    cycles_s = _native.cycle_s(2, 5)
    assert len(cycles_s) == 5
    assert all(1e-11 < cycle_s < 1e-6 for cycle_s in cycles_s)


def test_unknown_access_is_refused() -> None:
    with pytest.raises(ValueError, match="'load', 'store' or 'copy', got 'move'"):
        _native.bandwidth_byte_per_s("move", 1024, 0.01, 1, 1)  # type: ignore[arg-type]


def test_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="fma_f32"):
        _native.peak_flop_per_s("int8", 0.01, 1)  # type: ignore[arg-type]
