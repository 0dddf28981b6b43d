"""The options of the program, checked before anything is measured."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn, TypeVar, get_args

from sparseplan.kernels.cpu import detect_machine
from sparseplan.kernels.errors import InputError
from sparseplan.kernels.pattern import parse_pattern
from sparseplan.kernels.problem import Dtype

from .cases import Grid
from .layer_sets import DEFAULT_SETS, LAYER_SETS, LayerSet
from .rivals import CONTESTANTS, widest_kernels

PATTERNS = "unstructured,block:16x1,block:16x32,2:4,1:4,filter,shape,filter+shape,sas:1:2,sas:1:4"
"""Of float32 and bfloat16; int8 has block:16x64."""
WIDEST = "widest"
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to measure, for how long, and where the results go."""

    sets: tuple[LayerSet, ...]
    grid: Grid
    kernels: tuple[str, ...]
    budget_s: float
    out: Path
    appends: bool
    only_list: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see '{self.prog} --help'\n")


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line; a wrong value ends the program with one line and exit code 2."""
    parser = _Parser(
        prog="python -m benchmarks.kernels",
        description="Time every kernel over the layers of known networks, against torch and scipy.",
    )
    parser.add_argument(
        "--layers", type=_list(_layer_set), metavar="SET[,SET]", help=f"layer sets ({','.join(DEFAULT_SETS)})"
    )
    parser.add_argument("--patterns", type=_list(_pattern), default=PATTERNS, metavar="P[,P]", help="(%(default)s)")
    parser.add_argument(
        "--dtypes", type=_list(_dtype), default="float32,bfloat16", metavar="D[,D]", help="(%(default)s)"
    )
    parser.add_argument("--batch", type=_list(_count), default="1", metavar="N[,N]", help="images or sequences (1)")
    parser.add_argument("--threads", type=_list(_threads), default="1", metavar="T[,T]", help="(1)")
    parser.add_argument(
        "--sparsity",
        type=_list(_sparsity),
        default="0.5,0.75,0.9",
        metavar="S[,S]",
        help="shares of zeros (%(default)s)",
    )
    parser.add_argument(
        "--kernels",
        type=_kernels,
        default=WIDEST,
        metavar="GLOB[,GLOB]",
        help=f"kernels by name; '*' for all, '{WIDEST}' for those of this machine's widest vectors (%(default)s)",
    )
    parser.add_argument(
        "--budget-s", type=_seconds, default=0.3, metavar="S", help="timing of all kernels on one layer (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench-kernels"), metavar="FOLDER", help="(%(default)s)")
    parser.add_argument(
        "--append", action="store_true", help="keep what the CSV in the folder has, and measure only what it lacks"
    )
    parser.add_argument("--list", action="store_true", help="list layer sets and kernels, and measure nothing")
    given = parser.parse_args(arguments)
    sets = given.layers or tuple(_layer_set(name) for name in DEFAULT_SETS)
    return Options(
        sets=sets,
        grid=Grid(
            batches=given.batch,
            threads=given.threads,
            dtypes=given.dtypes,
            patterns=given.patterns,
            sparsities=given.sparsity,
        ),
        kernels=given.kernels,
        budget_s=given.budget_s,
        out=given.out,
        appends=given.append,
        only_list=given.list,
    )


def _list(one: Callable[[str], Value]) -> Callable[[str], tuple[Value, ...]]:
    """Values between commas, each once."""

    def read(text: str) -> tuple[Value, ...]:
        return tuple(dict.fromkeys(one(word.strip()) for word in text.split(",")))

    return read


def _layer_set(name: str) -> LayerSet:
    for known in LAYER_SETS:
        if known.name == name:
            return known
    raise _wrong("layer set", name, ", ".join(known.name for known in LAYER_SETS))


def _pattern(text: str) -> str:
    try:
        return parse_pattern(text).text
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _dtype(text: str) -> Dtype:
    for dtype in get_args(Dtype):
        if dtype == text:
            return dtype  # type: ignore[no-any-return]
    raise _wrong("dtype", text, ", ".join(get_args(Dtype)))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise _wrong("number", text, "whole numbers from 1 on")
    return int(text)


def _threads(text: str) -> int:
    usable = len(os.sched_getaffinity(0))
    if (threads := _count(text)) > usable:
        raise _wrong("thread count", text, f"1 to {usable}, the cores that this process may use")
    return threads


def _sparsity(text: str) -> float:
    if not 0.0 <= (value := _number(text)) <= 1.0:
        raise _wrong("sparsity", text, "shares of zero weights from 0 to 1")
    return value


def _seconds(text: str) -> float:
    if not 0.0 < (value := _number(text)) <= 3600.0:
        raise _wrong("budget", text, "seconds above 0, at most 3600")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _wrong("number", text, "decimal numbers such as 0.75") from None


def _kernels(text: str) -> tuple[str, ...]:
    if text == WIDEST:
        return widest_kernels(detect_machine())
    names = [kernel.name for kernel in CONTESTANTS]
    for glob in text.split(","):
        if not any(fnmatch(name, glob) for name in names):
            raise _wrong("kernel", glob, "names and globs that --list shows, such as 'conv2d_*avx512'")
    return tuple(name for name in names if any(fnmatch(name, glob) for glob in text.split(",")))


def _wrong(kind: str, seen: str, allowed: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{kind} {seen!r} is not possible; allowed: {allowed}")
