"""Patterns that were asked for and that no kernel of the machine can use: layers would stay dense without a word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..kernels.pattern import parse_pattern
from ..kernels.select import NAMES, why_ineligible
from .levels import levels_of
from .options import DTYPES_OF, Machinery, TimedNetwork
from .schema import DtypePolicy, UnusablePattern
from .time_options import patterns_for

MOST_REASONS = 3


def unusable_patterns(
    timed: TimedNetwork, patterns: Sequence[str], *, dtype_policy: DtypePolicy, machinery: Machinery
) -> tuple[UnusablePattern, ...]:
    """The patterns for which no layer has a kernel, and why; width groups need none for their parts."""
    tried = {option.problem.pattern for each in timed.layers for option in (*each.faster, *each.slower)}
    found = []
    for text in patterns:
        asked = [patterns_for((text,), each.layer, timed.widths) for each in timed.layers]
        if all(left and tried.isdisjoint(left) for left in asked):
            reasons = tuple(dict.fromkeys(_reasons(timed, text, dtype_policy, machinery)))
            found.append(UnusablePattern(pattern=text, reason="; ".join(reasons[:MOST_REASONS])))
    return tuple(found)


def _reasons(timed: TimedNetwork, text: str, dtype_policy: DtypePolicy, machinery: Machinery) -> Iterator[str]:
    """Of the kernels that skip the pattern, at the sparsities that the layers can have, the largest layer first."""
    pattern, machine = parse_pattern(text), machinery.machine
    skipping = [kernel for kernel in machinery.registry if not set(kernel.patterns).isdisjoint(pattern.kinds)]
    here = [kernel for kernel in skipping if kernel.device == machine.device]
    if not here:
        elsewhere = sorted({NAMES[kernel.device] for kernel in skipping})
        yield f"its kernels run on {' and '.join(elsewhere)} only" if elsewhere else "no kernel skips it"
        return
    for each in sorted(timed.layers, key=lambda each: -each.layer.problem.flop_dense_equiv):
        dense = each.layer.problem
        levels = levels_of(pattern, dense.weight_shape)
        for dtype in DTYPES_OF[dtype_policy]:
            fitting = [kernel for kernel in here if (kernel.op, kernel.dtype) == (dense.op, dtype)]
            if not fitting:
                yield f"no kernel for {dense.op} in {dtype}"
            for kernel in fitting if levels else ():
                reason = why_ineligible(kernel, replace(dense.with_sparsity(text, levels[-1]), dtype=dtype), machine)
                if reason is not None:
                    yield reason
    yield "no layer has weights that it can be cut from"
