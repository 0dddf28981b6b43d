"""One case: all kernels that can run it are checked, then timed in alternation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sparseplan.kernels.errors import UnsupportedError
from sparseplan.kernels.inputs import random_inputs
from sparseplan.kernels.pattern import SasPart, parse_pattern
from sparseplan.kernels.problem import Problem
from sparseplan.kernels.select import eligible
from sparseplan.kernels.spec import KernelSpec, Machine
from sparseplan.kernels.weights import flop_useful_of, make_weight, with_actual_sparsity
from sparseplan.perfmodel.limits import Limits
from sparseplan.profiles.measure_problems import SEED, Checked, check_kernel, torch_threads
from sparseplan.profiles.timing import TimeStats, measure_alternating

from .cases import Case
from .rivals import CONTESTANTS
from .roofline import bound_s

FAR_BEHIND = 8.0
"""Times as slow as the fastest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kernel on one case: a line of the CSV. Times and rates are NaN where there are none; `reason` says why.

    `asked_sparsity` is NaN for a layer with weights of its own. `dtype` and `pattern` are those of the case: where the
    dense rival is another layer (see `dense_problem`), its line counts that one's work.
    """

    layer_set: str
    layer: str
    op: str
    shape: str
    batch: int
    threads: int
    dtype: str
    pattern: str
    asked_sparsity: float
    sparsity: float
    kernel: str
    time_s: float
    time_low_s: float
    time_high_s: float
    samples: int
    flop_useful: float
    flop_dense_equiv: float
    useful_flop_per_s: float
    dense_equiv_flop_per_s: float
    roofline_frac: float
    best_dense: str
    speedup: float
    speedup_low: float
    speedup_high: float
    pack_s_per_million_weights: float
    rel_error: float
    reason: str


def run_case(case: Case, machine: Machine, limits: Limits, *, kernels: tuple[str, ...], budget_s: float) -> list[Row]:
    """Measure all kernels on one case.

    Parameters
    ----------
    kernels : tuple of str
        Names to measure; the dense kernels of torch run in any case, for the speedup.
    budget_s : float
        For the timing of all kernels together, in seconds.
    """
    problem = case.problem
    generator = torch.Generator().manual_seed(SEED)
    try:
        weight = make_weight(problem, generator)
    except UnsupportedError as error:
        return [untimed(case, reason=str(error))]
    problem = with_actual_sparsity(problem, weight)
    rivals = [(problem, kernel) for kernel in eligible(problem, machine, CONTESTANTS) if kernel.name in kernels]
    if not rivals:
        return [untimed(case, reason="no kernel that is measured can run it")]
    dense = dense_problem(problem)
    rivals += [
        (dense, kernel)
        for kernel in eligible(dense, machine, CONTESTANTS)
        if is_dense_torch(kernel) and (dense, kernel) not in rivals
    ]
    inputs = {problem: random_inputs(problem, weight, generator)}
    if dense != problem:
        inputs[dense] = random_inputs(dense, make_weight(dense, generator), generator)
    expected = {its_problem: each.expected() for its_problem, each in inputs.items()}
    with torch.inference_mode(), torch_threads(problem.threads):
        checked = [check_kernel(kernel, inputs[its], expected[its]) for its, kernel in rivals]
        right = [rival for rival in checked if rival.reason is None]
        times = _measure([rival.call for rival in right], budget_s)
    time_of = {rival.kernel.name: time for rival, time in zip(right, times, strict=True)}
    dense_names = [kernel.name for its, kernel in rivals if its == dense and is_dense_torch(kernel)]
    best = min((name for name in dense_names if name in time_of), key=lambda name: time_of[name].median, default="")
    useful = flop_useful_of(problem, weight)
    return [
        _row(
            case,
            its_problem,
            rival,
            flop_useful=useful if its_problem == problem else its_problem.flop_dense_equiv,
            time=time_of.get(rival.kernel.name),
            best=(best, time_of[best]) if best else None,
            bound=bound_s(its_problem, rival.kernel, limits),
        )
        for (its_problem, _), rival in zip(rivals, checked, strict=True)
    ]


def _measure(calls: list[Callable[[], object]], budget_s: float) -> list[TimeStats]:
    """Rivals in alternation; those that are far behind afterwards, a few times: they would take most of the time."""
    once = [_time_once(call) for call in calls]
    behind = [time_s > FAR_BEHIND * min(once) for time_s in once]
    near = iter(_alternate([call for call, late in zip(calls, behind, strict=True) if not late], budget_s))
    far = iter(_alternate([call for call, late in zip(calls, behind, strict=True) if late], 0.0))
    return [next(far if late else near) for late in behind]


def _alternate(calls: list[Callable[[], object]], budget_s: float) -> tuple[TimeStats, ...]:
    return measure_alternating(calls, budget_s=budget_s) if calls else ()


def _time_once(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def is_dense_torch(kernel: KernelSpec) -> bool:
    """Whether a kernel is how people run a dense layer today: eager torch, or oneDNN with weights packed once."""
    return kernel.patterns == ("dense",) and kernel.isa == "any"


def dense_problem(problem: Problem) -> Problem:
    """What dense torch runs instead: mostly the same weights, zeros included.

    SAS is compared with the dense layer of m times the width, int8 with bfloat16 (torch has no packed dense int8).
    """
    if problem.dtype == "int8":
        return dense_problem(replace(problem, dtype="bfloat16"))
    for part in parse_pattern(problem.pattern).parts:
        if isinstance(part, SasPart):
            return replace(problem.as_dense(), c_in=problem.c_in * part.m)
    return problem


def shape_text(problem: Problem) -> str:
    """``256->384 3x3 13x13 n16``, the way people write layers."""
    if problem.op == "linear":
        return f"{problem.c_in}->{problem.c_out} n{problem.n}"
    stride = "" if problem.stride == (1, 1) else f"/{problem.stride[0]}"
    kernel, image = "x".join(map(str, problem.kernel)), f"{problem.h_in}x{problem.w_in}"
    return f"{problem.c_in}->{problem.c_out} {kernel}{stride} {image} n{problem.n}"


def _row(
    case: Case,
    problem: Problem,
    rival: Checked,
    *,
    flop_useful: float,
    time: TimeStats | None,
    best: tuple[str, TimeStats] | None,
    bound: float,
) -> Row:
    plain = untimed(case, reason=rival.reason or "")
    plain = replace(
        plain,
        kernel=rival.kernel.name,
        sparsity=round(1.0 - flop_useful / problem.flop_dense_equiv, 6),
        flop_useful=flop_useful,
        flop_dense_equiv=problem.flop_dense_equiv,
        pack_s_per_million_weights=rival.pack_time_s / (problem.weight_count / 1e6),
        rel_error=math.nan if rival.rel_error is None else rival.rel_error,
    )
    if time is None:
        return plain
    plain = replace(
        plain,
        time_s=time.median,
        time_low_s=time.low,
        time_high_s=time.high,
        samples=time.n,
        useful_flop_per_s=flop_useful / time.median,
        dense_equiv_flop_per_s=problem.flop_dense_equiv / time.median,
        roofline_frac=bound / time.median,
    )
    if best is None:
        return plain
    name, dense = best
    return replace(
        plain,
        best_dense=name,
        speedup=dense.median / time.median,
        speedup_low=dense.low / time.high,
        speedup_high=dense.high / time.low,
    )


def setting_of(row: Row) -> tuple[object, ...]:
    """What tells a case from all others."""
    asked = None if math.isnan(row.asked_sparsity) else row.asked_sparsity
    return (row.layer_set, row.layer, row.batch, row.threads, row.dtype, row.pattern, asked)


def untimed(case: Case, *, reason: str = "") -> Row:
    """The line of a case that no kernel has run."""
    problem, nan = case.problem, math.nan
    return Row(
        layer_set=case.layer_set,
        layer=case.layer,
        op=problem.op,
        shape=shape_text(problem),
        batch=case.batch,
        threads=problem.threads,
        dtype=problem.dtype,
        pattern=problem.pattern,
        asked_sparsity=nan if problem.weights else problem.sparsity,
        sparsity=problem.sparsity,
        kernel="",
        time_s=nan,
        time_low_s=nan,
        time_high_s=nan,
        samples=0,
        flop_useful=problem.flop_useful,
        flop_dense_equiv=problem.flop_dense_equiv,
        useful_flop_per_s=nan,
        dense_equiv_flop_per_s=nan,
        roofline_frac=nan,
        best_dense="",
        speedup=nan,
        speedup_low=nan,
        speedup_high=nan,
        pack_s_per_million_weights=nan,
        rel_error=nan,
        reason=reason,
    )
