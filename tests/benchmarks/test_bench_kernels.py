"""The benchmark of all kernels: a tiny run, an interrupted one, and wrong options."""

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.spec import Machine

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "benchmarks.kernels", "--budget-s", "0.001", "--layers"]
SMALL = ["--patterns", "unstructured,2:4", "--dtypes", "float32", "--sparsity", "0.5,0.9"]


def test_tiny_run(tmp_path: Path) -> None:
    run = subprocess.run(
        [*PROGRAM, "tiny", *SMALL, "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-500:]
    table = pd.read_csv(tmp_path / "kernels.csv")
    settings = {
        (pattern, sparsity) for pattern, sparsity in zip(table["pattern"], table["asked_sparsity"], strict=True)
    }
    assert settings == {("unstructured", 0.5), ("unstructured", 0.9), ("2:4", 0.5)}
    assert set(table["layer"]) == {"conv", "linear"}
    assert set(table["kernel"]) - {kernel.name for kernel in REGISTRY} == {
        "conv2d_unstructured_f32_im2colcsr__torch",
        "conv2d_unstructured_f32_im2colcsr__scipy",
        "linear_unstructured_f32_csr__torch",
        "linear_unstructured_f32_csr__scipy",
    }
    assert (table["rel_error"] < 1e-5).all()
    assert (table["time_low_s"] <= table["time_s"]).all()
    assert (table["time_s"] <= table["time_high_s"]).all()
    for _, case in table.groupby(["layer", "pattern", "asked_sparsity"]):
        dense = case[case["kernel"].str.contains("_dense_")]
        assert np.isclose(dense["speedup"].max(), 1.0)
        assert np.allclose(case["speedup"], dense["time_s"].min() / case["time_s"])
    assert (table["roofline_frac"] > 0).all()
    assert "tiny, float32, batch 1, 1 thread, unstructured, 90% zeros" in run.stdout
    means = pd.read_csv(tmp_path / "means.csv")
    assert set(means["kernel"]) == set(table["kernel"])
    assert (means["layers"] == 1).all()
    for op, ending in itertools.product(("conv2d", "linear"), ("svg", "png")):
        assert (tmp_path / f"speedup-{op}-float32-batch1-threads1.{ending}").stat().st_size > 5000


def test_runs_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the folder has is kept as it is; only what it lacks is measured."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.kernels import __main__ as program

    tiny = ["benchmarks.kernels", "--budget-s", "0.001", "--layers", "tiny", "--dtypes", "float32", "--append"]
    asked = {"2:4": ["--patterns", "2:4"], "both": ["--patterns", "2:4,sas:1:2"]}
    tables = {}
    for name, patterns in asked.items():
        monkeypatch.setattr("sys.argv", [*tiny, *patterns, "--out", str(tmp_path)])
        assert program.main() == 0
        tables[name] = pd.read_csv(tmp_path / "kernels.csv")
    kept, added = (tables["both"][tables["both"]["pattern"] == pattern] for pattern in ("2:4", "sas:1:2"))
    pd.testing.assert_frame_equal(kept, tables["2:4"])
    assert set(added["layer"]) == {"conv", "linear"}
    (tmp_path / "kernels.csv").write_text("layer_set,kernel\n")
    assert program.main() == 2


def test_kernels_that_are_far_behind_are_timed_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.kernels.contest import _measure

    fast, slow, other = _measure(
        [lambda: time.sleep(0.001), lambda: time.sleep(0.03), lambda: time.sleep(0.002)], budget_s=0.05
    )
    assert fast.n == other.n >= 7
    assert slow.n == 3
    assert slow.median >= 0.03


def test_kernels_of_narrower_vectors_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.kernels.rivals import CONTESTANTS, widest_kernels

    isa = {kernel.name: kernel.isa for kernel in CONTESTANTS}
    for best, others in (("avx512", {"avx2", "baseline"}), ("avx2", {"avx512", "baseline"})):
        machine = Machine(isa=("baseline", "avx2", "avx512") if best == "avx512" else ("baseline", "avx2"))
        left = {isa[name] for name in widest_kernels(machine)}
        assert {best, "any", "avx512bf16"} <= left
        assert left.isdisjoint(others)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Programs started by a test heed interrupts, even if the tests run in the background of a shell and do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    run = subprocess.Popen(
        # The CSV appears after the first layer, which has the cases of `SMALL` alone; the other layers take minutes.
        [*PROGRAM, "tiny,resnet50", *SMALL, "--batch", "16", "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "kernels.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    out, errors = run.communicate(timeout=120)
    assert run.returncode == 130, errors[-500:]
    assert "interrupted after" in out
    assert len(pd.read_csv(tmp_path / "kernels.csv")) > 10
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "resnet"], "layer set 'resnet' is not possible; allowed: alexnet, resnet50"),
        (["--patterns", "3:2"], "unknown sparsity pattern '3:2'"),
        (["--dtypes", "float64"], "dtype 'float64' is not possible"),
        (["--batch", "0"], "number '0' is not possible"),
        (["--threads", "100000"], "thread count '100000' is not possible"),
        (["--sparsity", "1.5"], "sparsity '1.5' is not possible"),
        (["--sparsity", "half"], "number 'half' is not possible"),
        (["--budget-s", "nan"], "budget 'nan' is not possible"),
        (["--kernels", "fast*"], "kernel 'fast\\*' is not possible"),
    ],
)
def test_wrong_options(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.kernels.options import parse_options

    with pytest.raises(SystemExit) as end:
        parse_options(arguments)
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert message.replace("\\", "") in printed
