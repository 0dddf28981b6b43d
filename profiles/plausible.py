"""Limits within which a measured machine number is believed."""

from __future__ import annotations

from itertools import pairwise, product

from ..kernels.errors import InputError, UnsupportedError
from .schema import Ceiling, MachineProfile

LIMITS: dict[str, tuple[float, float]] = {
    "flop/s": (1e8, 1e16),
    "byte/s": (1e8, 1e15),
    "s": (1e-9, 1e-1),
    "Hz": (1e8, 2e10),
}
"""From a small in-order core to the largest servers and accelerators, with an order of magnitude to spare."""
TIGHTER_LIMITS = {"latency_s:parallel_region": (1e-9, 1e-3)}
"""Threads that meet later than this wait for a core that another program holds: no time taken then means anything."""

LONGEST_S = 3600.0
SHORTEST_S = 1e-9
LEVELS = ("l1", "l2", "l3", "dram")
SUFFIXES = ("", ":store", ":copy")
BANDWIDTH_NOISE_FRAC = 0.5
"""By how much an outer memory level may seem faster than the level inside it before the measurement is refused."""


def implausible_ceiling(ceiling: Ceiling) -> str | None:
    """Why a ceiling cannot be that of a real machine, or None."""
    least, most = TIGHTER_LIMITS.get(ceiling.name, LIMITS[ceiling.unit])
    seen = f"{ceiling.name} at {ceiling.threads} threads is {ceiling.value:.3g} {ceiling.unit}"
    if not least <= ceiling.value <= most:
        return f"{seen}, plausible is {least:g} to {most:g}"
    if not ceiling.low <= ceiling.value <= ceiling.high:
        return f"{seen}, outside its own interval {ceiling.low:.3g} to {ceiling.high:.3g}"
    return None


def rising_bandwidth(ceilings: tuple[Ceiling, ...]) -> str | None:
    """Say where an outer memory level looks faster than an inner one beyond the noise, or None."""
    for threads, suffix in product(sorted({ceiling.threads for ceiling in ceilings}), SUFFIXES):
        found = {ceiling.name: ceiling.value for ceiling in ceilings if ceiling.threads == threads}
        names = [name for level in LEVELS if (name := f"bandwidth_byte_per_s:{level}{suffix}") in found]
        for inner, outer in pairwise(names):
            if found[outer] > found[inner] * (1.0 + BANDWIDTH_NOISE_FRAC):
                return f"{outer} at {threads} threads is {found[outer]:.3g} byte/s, {inner} only {found[inner]:.3g}"
    return None


def require_measured(ceilings: tuple[Ceiling, ...]) -> None:
    """Refuse ceilings that were just measured and cannot be true.

    Raises
    ------
    UnsupportedError
        Names the first absurd ceiling.
    """
    absurd = [line for line in map(implausible_ceiling, ceilings) if line]
    reason = absurd[0] if absurd else rising_bandwidth(ceilings)
    if reason:
        raise UnsupportedError(f"the machine cannot be measured: {reason}; stop other work on it and profile again")


def require_plausible(profile: MachineProfile, source: str) -> None:
    """Refuse a stored profile with absurd numbers.

    Raises
    ------
    InputError
        Names `source` and the first absurd number.
    """
    for line in map(implausible_ceiling, profile.ceilings):
        if line:
            raise InputError(f"{source} is not believable: {line}; make the profile again")
    timed = [(sample.kernel, sample.time_s) for sample in profile.samples]
    timed += [(sample.operation, sample.time_s) for sample in profile.elementwise]
    for name, time_s in timed:
        if not SHORTEST_S <= time_s.low <= time_s.median <= time_s.high <= LONGEST_S:
            raise InputError(
                f"{source} is not believable: {name} has times {time_s.low:.3g} <= {time_s.median:.3g} <= "
                f"{time_s.high:.3g} s, plausible is {SHORTEST_S:g} to {LONGEST_S:g} in this order; "
                "make the profile again"
            )
