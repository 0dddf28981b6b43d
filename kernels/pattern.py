"""Sparsity patterns: every kind of weight sparsity is a block shape.

A weight is ``W[K, C, R, S]``: output channels, input channels per group, kernel height, kernel width (a linear weight
is ``W[K, C, 1, 1]``). A pattern cuts W into groups that are zeroed together. This description alone gives the
regulariser's groups, the mask, the packed format, the cost formula and the planner's candidates.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache

from .errors import InputError

WHOLE_AXIS = None
"""Extent of a block that covers its whole axis (written ``*``)."""

Extent = int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPart:
    """Groups are blocks of ``[K, C, R, S]``; an extent of ``None`` covers the whole axis."""

    name: str
    block: tuple[Extent, Extent, Extent, Extent]


@dataclass(frozen=True, slots=True, kw_only=True)
class NmPart:
    """At most n of m consecutive input channels are non-zero (SWS).

    With `v` above 1, v neighbouring output channels share which 2 n of the m input channels they may use, and each uses
    n of these: a kernel leaves the other columns out for all v at once.

    References
    ----------
    Castro et al., VENOM: a vectorized N:M format for unleashing the power of sparse tensor cores, SC 2023 (V:N:M; there
    n is 2, so that four columns stay).
    """

    name: str
    n: int
    m: int
    v: int = 1

    @property
    def columns(self) -> int:
        """Of m input channels, those that v output channels use together."""
        return self.m if self.v == 1 else 2 * self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class SasPart:
    """Weights dense at m times the input width, n of m activations non-zero (SAS)."""

    name: str
    n: int
    m: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LowRankPart:
    """No weight is zero, but the weight is a product of thin ones; the sparsity is the share of weights that saves."""

    name: str


Part = BlockPart | NmPart | SasPart | LowRankPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A pattern as written in files and on the command line; no parts means dense."""

    text: str
    parts: tuple[Part, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of each part, the unit in which kernels declare what they can skip."""
        return tuple(_kind(part) for part in self.parts)

    @property
    def is_dense(self) -> bool:
        return not self.parts

    @property
    def has_mask(self) -> bool:
        """Whether a mask of zero weights makes a weight one of this pattern: not for activations, not for low rank."""
        return not any(isinstance(part, SasPart | LowRankPart) for part in self.parts)

    @property
    def fixed_sparsity(self) -> float | None:
        """Sparsity that the pattern itself dictates (dense, N:M, SAS), or None where it is free."""
        return self.least_sparsity if all(isinstance(part, NmPart | SasPart) for part in self.parts) else None

    @property
    def least_sparsity(self) -> float:
        """Sparsity that its N:M and SAS parts alone bring; parts with a free sparsity can only add to it."""
        return 1.0 - math.prod(part.n / part.m for part in self.parts if isinstance(part, NmPart | SasPart))

    @property
    def slots(self) -> int:
        """Weights a kernel position has for each input channel: m under SAS, else 1."""
        return math.prod(part.m for part in self.parts if isinstance(part, SasPart))

    def __str__(self) -> str:
        return self.text


_NAMED_BLOCKS: dict[str, tuple[Extent, Extent, Extent, Extent]] = {
    "unstructured": (1, 1, 1, 1),
    "shape": (WHOLE_AXIS, 1, 1, 1),
    "filter": (1, WHOLE_AXIS, WHOLE_AXIS, WHOLE_AXIS),
    "channel": (WHOLE_AXIS, 1, WHOLE_AXIS, WHOLE_AXIS),
    "filter2d": (1, 1, WHOLE_AXIS, WHOLE_AXIS),
    "depth": (WHOLE_AXIS, WHOLE_AXIS, WHOLE_AXIS, WHOLE_AXIS),
}
LOW_RANK = "lowrank"
_ALLOWED = (
    f"dense, {', '.join(_NAMED_BLOCKS)}, block:KxC, n:m (n < m), v:n:m (v > 1, 2n < m), sas:n:m, "
    "and sums of these with '+'; lowrank"
)


def _kind(part: Part) -> str:
    if isinstance(part, NmPart):
        return "n:m" if part.v == 1 else "v:n:m"
    return part.name.split(":")[0]


@cache
def parse_pattern(text: str) -> Pattern:
    """Read a pattern such as ``filter+shape``, ``block:16x32``, ``2:4`` or ``sas:1:2``.

    Raises
    ------
    InputError
        If the text is not a pattern, names a part twice, or two N:M or two SAS parts (the second could do nothing).
    """
    if text == "dense":
        return Pattern(text=text, parts=())
    words = text.split("+")
    parts = tuple(_parse_part(word, text) for word in words)
    repeats = any(sum(isinstance(part, kind) for part in parts) > 1 for kind in (NmPart, SasPart))
    if len(set(words)) < len(words) or repeats:
        raise InputError(
            f"sparsity pattern {text!r} repeats a part; name each part once, and at most one n:m and one sas:n:m"
        )
    if len(parts) > 1 and any(isinstance(part, LowRankPart) for part in parts):
        raise InputError(
            f"sparsity pattern {text!r} combines {LOW_RANK!r} with others; its factors are dense, give it alone"
        )
    return Pattern(text=text, parts=parts)


def _parse_part(word: str, text: str) -> Part:
    if word == LOW_RANK:
        return LowRankPart(name=word)
    if word in _NAMED_BLOCKS:
        return BlockPart(name=word, block=_NAMED_BLOCKS[word])
    if match := re.fullmatch(r"block:([1-9]\d{0,4})x([1-9]\d{0,4})", word):
        return BlockPart(name=word, block=(int(match[1]), int(match[2]), 1, 1))
    if match := re.fullmatch(r"(sas:)?([1-9]\d{0,2}):([1-9]\d{0,2})", word):
        n, m = int(match[2]), int(match[3])
        if n < m:
            return SasPart(name=word, n=n, m=m) if match[1] else NmPart(name=word, n=n, m=m)
    if match := re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,2}):([1-9]\d{0,2})", word):
        v, n, m = (int(number) for number in match.groups())
        if v > 1 and 2 * n < m:
            return NmPart(name=word, n=n, m=m, v=v)
    raise InputError(f"unknown sparsity pattern {word!r} in {text!r}; allowed: {_ALLOWED}")


DENSE = parse_pattern("dense")
