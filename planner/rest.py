"""The time of what lies between the layers, and how much of it goes with the widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..kernels.problem import DTYPE_BYTES, Dtype, Problem
from ..perfmodel.schema import Interval
from .capture import Captured
from .kernel_times import EligibleKernels
from .options import Machinery, add_times
from .rest_operations import ATTENTION, RestOperation
from .widths import GroupLevels

NO_TIME = Interval(median=0.0, low=0.0, high=0.0)
CALL_ERROR = 2.0
"""Factor by which entering a network may be off (assumed)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestTime:
    """Operations between the layers.

    Attributes
    ----------
    full_s : Interval
        With all widths whole, entering the network and its different layers included.
    fixed_s : Interval
        What no width changes.
    by_level : tuple of tuple of Interval
        By group and level: what the width adds to that.
    """

    full_s: Interval
    fixed_s: Interval
    by_level: tuple[tuple[Interval, ...], ...] = ()


def rest_time(captured: Captured, dtype: Dtype, machinery: Machinery, groups: Sequence[GroupLevels] = ()) -> RestTime:
    """Time between the layers.

    An operation on channels of several groups (after a concatenation) is taken to save with each what it would save
    with that one alone narrowed: its time is all but linear in the bytes.
    """
    times = _OperationTimes(dtype, machinery)
    group_of = {
        part.module: number for number, each in enumerate(groups) for part in each.group.slices if part.axis == "out"
    }
    terms = machinery.performance_model.network
    call_s = terms.call_s + terms.kind_s * len({layer.problem for layer in captured.layers})
    call = Interval(median=call_s, low=call_s / CALL_ERROR, high=call_s * CALL_ERROR)
    full, fixed = [call], [call]
    savings: list[list[list[Interval]]] = [[[] for _ in each.levels] for each in groups]
    for operation in captured.rest:
        whole = times(operation, operation.bytes_moved)
        full.append(whole)
        left = whole
        for group, moved in _by_group(operation, group_of).items():
            units = groups[group].group.units
            saved = []
            for level in groups[group].levels:
                bytes_left = operation.bytes_moved - moved * (1.0 - level / units)
                narrow = times(operation, bytes_left)
                saved.append(_difference(whole, narrow if level else _gone(moved, operation, narrow)))
            most = saved[0]
            left = _difference(left, most)
            for number, each in enumerate(saved):
                savings[group][number].append(_difference(most, each))
        fixed.append(left)
    return RestTime(
        full_s=add_times(full),
        fixed_s=add_times(fixed),
        by_level=tuple(tuple(add_times(each) for each in levels) for levels in savings),
    )


class _OperationTimes:
    """Times of operations of which so many float32 bytes are left, in a network of some dtype."""

    def __init__(self, dtype: Dtype, machinery: Machinery) -> None:
        self._dtype, self._model, self._kernels = dtype, machinery.performance_model, EligibleKernels(machinery)
        # Without tiles torch's attention multiplies half precision as slowly as float32: on a Zen 5, which has bfloat16
        # dot products, 6 heads of 197 rows took 517 us in float32 and 516 us in bfloat16; by themselves the products
        # took 339 and 120 us.
        slow = machinery.machine.device == "cpu" and "amx" not in machinery.machine.isa
        self._attention_dtype: Dtype = "float32" if slow else dtype

    def __call__(self, operation: RestOperation, bytes_left: float) -> Interval:
        if operation.products:
            share = bytes_left / operation.bytes_moved
            dtype = self._attention_dtype if operation.operation in ATTENTION else self._dtype
            whole = add_times([self._product(replace(problem, dtype=dtype)) for problem in operation.products])
            return Interval(median=share * whole.median, low=share * whole.low, high=share * whole.high)
        moved = bytes_left * DTYPE_BYTES[self._dtype] / DTYPE_BYTES["float32"]
        return self._model.predict_between(operation.operation, moved).interval

    def _product(self, problem: Problem) -> Interval:
        wanted = replace(problem, threads=self._model.threads)
        answers = (self._model.predict(wanted, kernel.name) for kernel in self._kernels.dense(wanted))
        return min(answers, key=lambda answer: answer.median_s).interval


def _by_group(operation: RestOperation, group_of: Mapping[str, int]) -> dict[int, float]:
    """Bytes that grow with each group."""
    found: dict[int, float] = {}
    for layer, moved in operation.by_layer:
        if layer in group_of:
            found[group_of[layer]] = found.get(group_of[layer], 0.0) + moved
    return found


def _gone(moved: float, operation: RestOperation, narrow: Interval) -> Interval:
    """Of a removed branch: an operation on its channels alone is gone, with its call."""
    return NO_TIME if moved >= 0.999 * operation.bytes_moved else narrow


def _difference(one: Interval, other: Interval) -> Interval:
    median = max(one.median - other.median, 0.0)
    return Interval(
        median=median,
        low=min(max(one.low - other.low, 0.0), median),
        high=max(one.high - other.high, median),
    )
