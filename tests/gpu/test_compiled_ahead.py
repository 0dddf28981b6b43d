"""Triton's code compiled for real architectures without a GPU: which units it uses, and what it takes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from sparseplan.kernels.gpu.direct_convolution import MOST_PIXELS, UNROLL, warps_of
from sparseplan.kernels.gpu.gather_product import tile_of
from sparseplan.kernels.problem import Dtype, Problem

LINEAR = {"op": "linear", "n": 4096, "c_in": 4096, "c_out": 4096}
CONV = {"op": "conv2d", "n": 64, "c_in": 256, "c_out": 256, "h_in": 14, "w_in": 14, "kernel": [3, 3], "padding": [1, 1]}
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}
"""Of one block of threads at most: CUDA C++ programming guide, technical specifications."""
MOST_STACK_BYTES = 64
"""Some addresses of a gathered convolution; sums in memory would take kilobytes."""
PROGRAM = """
import json, sys
from sparseplan.kernels.gpu.compile_ahead import compile_product
from sparseplan.kernels.problem import Problem
innermost, *texts = sys.argv[1:]
for text in texts:
    problem = Problem(**json.loads(text))
    for architecture in (80, 90):
        found = compile_product(problem, architecture=architecture, innermost=innermost, adds=True)
        print(json.dumps({name: getattr(found, name) for name in (
            "registers", "shared_bytes", "stack_bytes", "matrix_unit", "asynchronous_copies")}
            | {"architecture": architecture, "wide": "cp.async.cg" in found.ptx}))
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layer", [LINEAR, CONV], ids=["linear", "conv2d"])
def test_code_for_ampere_and_hopper(layer: dict[str, object], dtype: Dtype, triton_environment: dict[str, str]) -> None:
    patterns = ("block:64x64", "block:16x16", "shape")
    found = _compiled(
        [layer | {"dtype": dtype, "pattern": each, "sparsity": 0.75} for each in patterns],
        "channels",
        triton_environment,
    )
    for each, pattern in zip(found, [pattern for pattern in patterns for _ in range(2)], strict=True):
        _check(each, MOST_STACK_BYTES if pattern == "shape" else 0)


def test_turned_rows_are_loaded_in_vectors(triton_environment: dict[str, str]) -> None:
    problems = [LINEAR | {"dtype": dtype, "pattern": "64:2:16", "sparsity": 0.875} for dtype in ("float32", "bfloat16")]
    for each in _compiled(problems, "rows", triton_environment):
        _check(each, 0)


def _compiled(problems: list[dict[str, object]], innermost: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, innermost, *map(json.dumps, problems)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == 2 * len(problems)
    return found


def _check(each: dict[str, Any], most_stack_bytes: int) -> None:
    assert each["matrix_unit"] == {80: "mma", 90: "wgmma"}[each["architecture"]], each
    assert each["shared_bytes"] <= SHARED_BYTES[each["architecture"]], each
    assert each["asynchronous_copies"], each
    assert each["wide"], each
    assert each["stack_bytes"] <= most_stack_bytes, each


DIRECT_PROGRAM = """
import json, sys
from sparseplan.kernels.gpu.compile_ahead import compile_direct
from sparseplan.kernels.problem import Problem
for architecture in (80, 90):
    found = compile_direct(Problem(**json.loads(sys.argv[1])), architecture=architecture)
    print(json.dumps({"registers": found.registers, "stack_bytes": found.stack_bytes,
        "fma": found.ptx.count("fma.rn.f32")}))
"""


def test_direct_convolution_for_ampere_and_hopper(triton_environment: dict[str, str]) -> None:
    problem = CONV | {"pattern": "unstructured", "sparsity": 0.95}
    run = subprocess.run(
        [sys.executable, "-c", DIRECT_PROGRAM, json.dumps(problem)],
        env=triton_environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == 2
    for each in found:
        assert each["stack_bytes"] == 0
        # 16 warps of a multiprocessor's 64 at least: what hides the waits for input values.
        assert each["registers"] <= 128
        assert each["fma"] >= UNROLL * MOST_PIXELS // (32 * warps_of(MOST_PIXELS))


def test_tiles_follow_blocks_and_pixels() -> None:
    def tile(pattern: str, **changes: object) -> tuple[int, int, int]:
        found = tile_of(Problem(**(LINEAR | {"dtype": "bfloat16", "pattern": pattern, "sparsity": 0.5} | changes)))
        return found.pixels, found.outputs, found.run

    assert tile("block:64x64") == (128, 64, 64)
    assert tile("block:16x32") == (128, 16, 32)
    assert tile("block:256x128") == (128, 128, 64)
    assert tile("block:64x64", c_in=4080) == (128, 64, 16)
    assert tile("shape") == (64, 128, 1)
    assert tile("block:64x64", n=1) == (16, 64, 64)
