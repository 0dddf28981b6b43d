"""No native kernel reads or writes outside the buffers it was given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from guarded_memory import PAGE, GuardedMemory
from native_cases import native_kernels

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """What went wrong, by kernel; empty where nothing did."""
    run = subprocess.run(
        [sys.executable, "guarded_run.py"],
        cwd=HERE,
        # Under pytest this folder is on the path by itself.
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return dict(line.split("\t", 1) for line in run.stdout.splitlines())


@pytest.mark.parametrize("name", [kernel.name for kernel in native_kernels()])
def test_stays_inside_its_buffers(name: str, verdicts: dict[str, str]) -> None:
    assert verdicts[name] == ""


_TOUCH = """
import ctypes, torch
from guarded_memory import GuardedMemory
memory = GuardedMemory({place!r})
tensor = memory.copy(torch.ones(3, 5))
address = tensor.data_ptr() + {offset}
{touch}
memory.check()
"""


@pytest.mark.parametrize(
    ("place", "offset", "touch", "ends"),
    [
        ("end", 59, "ctypes.c_uint8.from_address(address).value", "clean"),
        ("end", 60, "ctypes.c_uint8.from_address(address).value", "SIGSEGV"),
        ("start", -1, "ctypes.c_uint8.from_address(address).value", "SIGSEGV"),
        ("end", -1, "ctypes.memset(address, 0, 1)", "1 bytes before a tensor of 60 bytes were overwritten"),
        ("start", 60, "ctypes.memset(address, 0, 2)", "2 bytes after a tensor of 60 bytes were overwritten"),
    ],
)
def test_the_guards_see_what_is_outside(place: str, offset: int, touch: str, ends: str) -> None:
    program = _TOUCH.format(place=place, offset=offset, touch=touch)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    if ends == "SIGSEGV":
        assert run.returncode == -11
    elif ends == "clean":
        assert run.returncode == 0, run.stderr
    else:
        assert ends in run.stderr


@pytest.mark.parametrize("place", ["end", "start"])
def test_guarded_copies_keep_values_and_strides(place: str) -> None:
    memory = GuardedMemory(place)
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        x = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(dtype).contiguous(memory_format=torch.channels_last)
        copy = memory.copy(x)
        assert torch.equal(copy, x)
        assert copy.stride() == x.stride()
        edge = copy.data_ptr() + (copy.nbytes if place == "end" else 0)
        assert edge % PAGE == 0
    memory.check()
    with pytest.raises(ValueError, match="gaps"):
        memory.copy(torch.ones(4, 4)[:, :2])
    with memory.for_outputs():
        assert torch.empty(7).isnan().all()
        assert torch.empty(2, 3, 4, 4, memory_format=torch.channels_last).is_contiguous(
            memory_format=torch.channels_last
        )
