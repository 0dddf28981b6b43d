"""``python -m benchmarks.gpu --out FOLDER``: goals, machine profile, planned networks and tests, within nine minutes.

Each part is a process of its own with its own limit, so that one that fails or hangs leaves the others standing; what
each printed is in the folder. The last lines are a table of everything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sparseplan.kernels.gpu.machine import why_no_gpu

ROOT = Path(__file__).resolve().parents[2]
TOTAL_S = 525.0
PART_S = {
    "cpu": 20.0,
    "compile": 70.0,
    "goals": 90.0,
    "profile": 90.0,
    "networks": 140.0,
    "gpu-tests": 120.0,
    "tune": 50.0,
    "cpu-tests": 60.0,
}
"""In this order: what matters most comes first. Where not all parts are asked for, each may take more; a part that
finds no time left is left out, and the table says so."""
WITHOUT_A_GPU = ("test_compiled_ahead", "test_cuda_programs", "test_emulated_sas", "test_interpreted")
"""Tests that say nothing more on a GPU."""
WITHOUT_A_DEVICE = {"cpu", "cpu-tests"}
STARTING_S = 20.0
"""Of a part, for what it cannot stop: loading torch, and the last thing that it measures."""
BUILDING_S = 60.0
"""A network that has less time left is not begun: planning it, and compiling it twice."""
PROFILE = "gpu.json.gz"
SHOWN = ("machine.txt", "compiled.txt", "profile.txt", "gpu-timing-tests.txt", "gpu-tests.txt", "cpu-tests.txt")
"""Files whose ends go into the table."""
LEAST_S = 30.0
"""A part that has less time left is not begun."""


def main() -> int:
    """Run all parts, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for results, logs and profile")
    parser.add_argument("--part", choices=tuple(PART_S), help="run one part in this process")
    parser.add_argument("--seconds", type=float, default=120.0, help="what --part profile, networks or tune may take")
    parser.add_argument("--parts", default=",".join(PART_S), help="comma-separated, the parts to run")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part is not None:
        return _part(options.part, options.out, options.seconds)
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in PART_S]:
        print(f"--parts: unknown {', '.join(unknown)}; allowed are {', '.join(PART_S)}", file=sys.stderr)
        return 2
    if (reason := why_no_gpu()) and not set(parts) <= WITHOUT_A_DEVICE:
        print(f"no GPU: {reason}; without one there are --parts {','.join(sorted(WITHOUT_A_DEVICE))}", file=sys.stderr)
        return 2
    return _all(parts, options.out.resolve())


def _all(parts: list[str], out: Path) -> int:
    start_s = time.perf_counter()
    ended: dict[str, str] = {}
    with (out / "log.txt").open("w", encoding="utf-8") as log:
        for number, part in enumerate(parts):
            left_s = TOTAL_S - (time.perf_counter() - start_s)
            if left_s < min(LEAST_S, PART_S[part]):
                ended[part] = "left out, no time"
                continue
            began_s = time.perf_counter()
            log.write(f"\n=== {part}\n")
            log.flush()
            stretch = max(1.0, left_s / sum(PART_S[each] for each in parts[number:]))
            limit_s = min(PART_S[part] * stretch, left_s)
            command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), "--part", part]
            command += ["--seconds", str(limit_s)]
            # A group of its own: what a part has started ends with it, and disturbs no later one.
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
            try:
                code = process.wait(limit_s)
                ended[part] = "done" if code == 0 else f"exit code {code}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                ended[part] = f"stopped after {limit_s:.0f} s"
            ended[part] += f" ({time.perf_counter() - began_s:.0f} s)"
    table = _table(out, ended)
    (out / "table.txt").write_text(table, encoding="utf-8")
    print(table)
    return 0 if all(how.startswith("done") for how in ended.values()) else 1


def _table(out: Path, ended: dict[str, str]) -> str:
    lines = []
    for name in (
        "machine.txt",
        "compiled.txt",
        "profile.txt",
        "gpu-timing-tests.txt",
        "gpu-tests.txt",
        "cpu-tests.txt",
    ):
        path = out / name
        if path.exists():
            lines += [f"--- {name}", *path.read_text(encoding="utf-8").splitlines()[-20:]]
    for name in ("goals.jsonl", "tune.jsonl"):
        path = out / name
        if not path.exists():
            continue
        lines.append(f"--- {name}: us, speedup over the best dense kernel of that way (asked), error")
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            taken = "-" if row["time_s"] is None else f"{row['time_s'] * 1e6:9.1f}"
            gain = "" if row["speedup"] is None else f"{row['speedup']:6.2f}x"
            asked = "" if row["asked"] is None else f"(asked {row['asked']}x)"
            error = "" if row["rel_error"] is None else f"{row['rel_error']:.1e}"
            way = f"{row['launch']}/{row['cache']}"
            said = row["reason"] or ""
            lines.append(f"{row['case']:48} {row['kernel']:40} {way:14} {taken} {gain} {asked} {error} {said}".rstrip())
    path = out / "networks.jsonl"
    if path.exists():
        lines.append("--- networks.jsonl: ms, dense -> planned, predicted and measured; speedup (asked)")
        lines += [_network_line(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    if not all(how.startswith("done") for how in ended.values()):
        lines += ["--- end of log.txt", *(out / "log.txt").read_text(encoding="utf-8").splitlines()[-20:]]
    lines.append("--- parts")
    lines += [f"{part:10} {how}" for part, how in ended.items()]
    return "\n".join(lines) + "\n"


def _network_line(row: dict[str, Any]) -> str:
    if row["dense_s"] is None:
        return f"{row['case']:36} {row['reason']}"
    predicted = f"{row['predicted_dense_s'] * 1e3:.3f} -> {row['predicted_planned_s'] * 1e3:.3f}"
    dense, planned = (f"{row[kind + '_s'] * 1e3:.3f} ({row[kind + '_host']})" for kind in ("dense", "planned"))
    gain = f"{row['speedup']:.2f}x (asked {row['asked']}x, {row['status']})"
    ran = f"{row['swapped'] - row['reverted']} of {row['swapped']} sparse layers kept, error {row['output_error']:.1e}"
    return f"{row['case']:36} {predicted}; {dense} -> {planned}; {gain}; {ran}; ship {row['shipped']}"


def _part(part: str, out: Path, seconds: float) -> int:
    timed = {"profile": _profile, "networks": _networks, "tune": _tune}
    if part in timed:
        return timed[part](out, seconds)
    parts = {"cpu": _cpu, "compile": _compile, "goals": _goals, "gpu-tests": _gpu_tests, "cpu-tests": _cpu_tests}
    return parts[part](out)


def _cpu(out: Path) -> int:
    """What this machine is: instruction sets first, since few machines have all of them."""
    from sparseplan.kernels.cpu import detect_machine
    from sparseplan.kernels.gpu.machine import detect_gpu
    from sparseplan.profiles.gpu_state import read_gpu_state

    told = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout
    (out / "lscpu.txt").write_text(told, encoding="utf-8")
    model = [line for line in told.splitlines() if line.startswith(("Model name", "CPU(s)", "Thread"))]
    flags = next((line for line in told.splitlines() if line.startswith("Flags")), "")
    wanted = ("amx_tile", "amx_bf16", "amx_int8", "amx_fp16", "avx512_fp16", "avx512_bf16", "avx512_vnni")
    lines = [
        *model,
        "flags of interest: " + (" ".join(flag for flag in wanted if f" {flag}" in flags) or "none"),
        f"instruction sets that sparseplan uses here: {' '.join(detect_machine().isa)}",
        f"GPU: {why_no_gpu() or ' '.join(detect_gpu().isa)}",
        str(read_gpu_state()),
    ]
    (out / "machine.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _compile(out: Path) -> int:
    from benchmarks.gpu.compile_first import compile_first

    report = compile_first()
    (out / "compiled.txt").write_text(report + "\n", encoding="utf-8")
    return 0


def _goals(out: Path) -> int:
    import torch

    from benchmarks.gpu.goals import cases, measure_case
    from sparseplan.kernels.gpu.machine import detect_gpu
    from sparseplan.profiles.cuda_timing import CudaGpu

    machine, gpu = detect_gpu(), CudaGpu()
    with (out / "goals.jsonl").open("w", encoding="utf-8") as file:
        for case in cases():
            for row in measure_case(case, machine=machine, device=torch.device("cuda"), gpu=gpu):
                file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
    return 0


def _tune(out: Path, seconds: float) -> int:
    import torch

    from benchmarks.gpu.goals import cases, tune_tiles
    from sparseplan.profiles.cuda_timing import CudaGpu

    until_s, gpu = time.perf_counter() + seconds - STARTING_S, CudaGpu()
    with (out / "tune.jsonl").open("w", encoding="utf-8") as file:
        for case in [case for case in cases() if case.problem.pattern == "block:64x64" and case.asked]:
            for row in tune_tiles(case, device=torch.device("cuda"), gpu=gpu, until_s=until_s):
                file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
    return 0


def _profile(out: Path, seconds: float) -> int:
    """The machine profile, for as long as there is time, less what starting and the ceilings take."""
    import torch

    from sparseplan.kernels.gpu.machine import detect_gpu
    from sparseplan.kernels.registry import REGISTRY
    from sparseplan.profiles.cuda_timing import CudaGpu
    from sparseplan.profiles.fingerprint import read_fingerprint
    from sparseplan.profiles.profile_gpu import GpuBench, profile_gpu
    from sparseplan.profiles.store import save_profile

    machine = detect_gpu()
    bench = GpuBench(device=torch.device("cuda"), gpu=CudaGpu(), fingerprint=read_fingerprint(machine))
    total_s = max(seconds - STARTING_S - 5.0, 5.0)
    found = profile_gpu("standard", machine=machine, registry=REGISTRY, bench=bench, total_s=total_s)
    save_profile(out / PROFILE, found)
    lines = [f"{each.name:28} {each.value:.4g} {each.unit}" for each in found.ceilings]
    lines.append(f"{len(found.samples)} samples in {found.duration_s:.0f} s, drift {found.drift_frac:.1%}")
    (out / "profile.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _networks(out: Path, seconds: float) -> int:
    """Plans rest on the profile that was measured just before."""
    until_s = time.perf_counter() + seconds - BUILDING_S
    from benchmarks.gpu.networks import NETWORK_CASES, measure_networks
    from sparseplan.kernels.gpu.machine import detect_gpu
    from sparseplan.profiles.stopwatch import stopwatch_of

    if not (out / PROFILE).exists():
        print(f"no {PROFILE} in {out}: the part 'profile' makes it", file=sys.stderr)
        return 2
    rows = measure_networks(
        NETWORK_CASES,
        profile=out / PROFILE,
        folder=out,
        machine=detect_gpu(),
        watch=stopwatch_of("cuda"),
        until_s=until_s,
    )
    with (out / "networks.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
    return 0


def _gpu_tests(out: Path) -> int:
    """Tests of timing run alone; the others side by side, as compiling is most of the time that they take."""
    plain = ["tests/gpu", "--ignore=tests/gpu/device", *(f"--ignore=tests/gpu/{name}.py" for name in WITHOUT_A_GPU)]
    words = [f"{op}_ and _{dtype}_" for op in ("conv2d", "linear") for dtype in ("f32", "bf16", "f16")]
    device = [["tests/gpu/device", "-k", word] for word in (*words, "not __triton")]
    return max(_tests(out / "gpu-timing-tests.txt", [plain]), _tests(out / "gpu-tests.txt", device))


def _cpu_tests(out: Path) -> int:
    """Kernels of instruction sets that this CPU may have: AMX and AVX512-FP16 are seldom at hand."""
    chosen = ["tests/kernels/test_registry.py", "-k", "amx or avx512fp16 or onednn"]
    return _tests(out / "cpu-tests.txt", [chosen])


def _tests(log: Path, processes: list[list[str]]) -> int:
    """Run pytest side by side with each list of arguments; what they print goes into one file, whole and in order."""
    # Other versions of torch, numpy and Triton than those tested warn of other things: not a failure here.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in processes]
        running = [
            subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=file, stderr=file)
            for arguments, file in zip(processes, files, strict=True)
        ]
        codes = [process.wait() for process in running]
        with log.open("w", encoding="utf-8") as whole:
            for file in files:
                file.seek(0)
                whole.write(file.read())
    return max(codes)


if __name__ == "__main__":
    raise SystemExit(main())
