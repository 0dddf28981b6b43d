"""Why a layer got what it got, in plain words; the same words in the plan and in its explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .schema import Candidate, WidthGroup

OTHER_DENSE = "dense, other kernel"
"""How a layer is told of that keeps all its weights and runs on a kernel that torch would not have taken."""


def milliseconds(time_s: float) -> str:
    return f"{time_s * 1e3:.3g} ms"


def percent(frac: float) -> str:
    return f"{100.0 * frac:.1f}".rstrip("0").rstrip(".") + " %"


def zeros(candidate: Candidate) -> str:
    """Pattern and sparsity: ``unstructured 90 %``."""
    if candidate.pattern == "dense":
        return OTHER_DENSE if candidate.other_dense else candidate.pattern
    return f"{candidate.pattern} {percent(candidate.sparsity)}"


def speed(candidate: Candidate, dense: Candidate) -> str:
    """Against the best dense way: ``3.1x faster than dense``."""
    if candidate.time_s.median == 0.0:
        return "takes no time"
    ratio = dense.time_s.median / candidate.time_s.median
    return f"{ratio:.2f}x faster than dense" if ratio >= 1.0 else f"{1.0 / ratio:.2f}x slower than dense"


def why_chosen(chosen: Candidate, dense: Candidate) -> str:
    """Of a choice that torch would not run by itself."""
    return f"{zeros(chosen)} on {chosen.kernel}: {speed(chosen, dense)}, loss +{chosen.loss_increase:.3g}"


def why_dense(
    dense: Candidate, considered: tuple[Candidate, ...], break_even: Mapping[str, float | None], *, has_faster: bool
) -> str:
    """Of a layer that stays dense: no kernel can win, or winning was not worth its loss."""
    if not considered:
        return f"left dense: no sparse kernel here can run this layer in an allowed pattern; {dense.kernel} it is"
    sure = [candidate for candidate in considered if candidate.time_s.high < dense.time_s.median]
    if has_faster and sure:
        nearest = min(sure, key=lambda candidate: candidate.loss_increase)
        return (
            f"left dense: the plan does without it; {zeros(nearest)} would be {speed(nearest, dense)} "
            f"at loss +{nearest.loss_increase:.3g}"
        )
    closest = min(considered, key=lambda candidate: candidate.time_s.high)
    beats = f"beats {milliseconds(dense.time_s.median)}"
    if closest.time_s.median < dense.time_s.median:
        median, worst = milliseconds(closest.time_s.median), milliseconds(closest.time_s.high)
        return (
            f"left dense: no kernel surely {beats}; {zeros(closest)} on {closest.kernel} may take {median}, "
            f"but at worst {worst}"
        )
    return f"left dense: no kernel {beats}; {would_need(closest, break_even)}"


def would_need(candidate: Candidate, break_even: Mapping[str, float | None]) -> str:
    """From which sparsity a loser would win."""
    sparsity = break_even.get(candidate.way)
    if sparsity is None:
        return f"{candidate.way} loses at every sparsity"
    return f"{candidate.way} would need > {percent(sparsity)} zeros"


def why_lost(candidate: Candidate, chosen: Candidate, dense: Candidate) -> str:
    """Of a candidate that was considered."""
    time, rival = candidate.time_s, dense.time_s
    if candidate.pattern != "dense" and time.median >= rival.median:
        return f"{speed(candidate, dense)}"
    if candidate.pattern != "dense" and time.high >= rival.median:
        return f"not surely faster: at worst {milliseconds(time.high)} against {milliseconds(rival.median)} dense"
    slower, worse = time.high >= chosen.time_s.high, candidate.loss_increase >= chosen.loss_increase
    if slower and worse:
        return "the choice has no more loss and takes no longer"
    if slower:
        factor = time.high / chosen.time_s.high
        return f"less loss, but at worst {factor:.2f}x the time of the choice, which is worth more elsewhere"
    extra = candidate.loss_increase - chosen.loss_increase
    faster = "faster" if time.median < chosen.time_s.median else "faster at worst"
    return f"{faster}, but {extra:.3g} more loss, which buys more in other layers"


def faster_kernel(considered: Sequence[Candidate], chosen: Candidate) -> str | None:
    """Which kernel, by how much faster, would change the decision: the smallest step there is.

    A candidate that loses no more than the choice wins once it is as fast. For a layer that is left dense no candidate
    loses as little; there the kernel must at least beat dense.
    """
    if chosen.pattern == "dense":
        rivals = [each for each in considered if each.pattern != "dense" and each.time_s.high >= chosen.time_s.median]
        goal_s, win = chosen.time_s.median, "for its zeros to save time here"
    else:
        rivals = [
            each
            for each in considered
            if each.pattern != "dense"
            and each.loss_increase <= chosen.loss_increase
            and each.time_s.high > chosen.time_s.high
        ]
        goal_s, win = chosen.time_s.high, "to take the place of the choice at no more loss"
    if not rivals:
        return None
    nearest = min(rivals, key=lambda candidate: candidate.time_s.high)
    factor = nearest.time_s.high / goal_s
    return f"{nearest.kernel} would have to be {factor:.2f}x faster, at worst, at {zeros(nearest)} {win}"


def why_width(group: WidthGroup, kept: int, loss: float) -> str:
    """Of a width group."""
    if kept == group.units:
        return f"all {group.units} units stay"
    if kept == 0:
        return f"the whole branch goes, loss +{loss:.3g}"
    return f"{kept} of {group.units} units stay in all {len(group.slices)} modules that share them, loss +{loss:.3g}"
