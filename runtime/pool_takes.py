"""One measurement from takes in several processes: medians move between processes by more than within one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..perfmodel.schema import Interval
from ..profiles.timing import TimeStats, pool
from .bench import fastest
from .schema import Dtype, Host, NetworkTime, Take, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """Times over all takes; intervals cover what moves between processes.

    Attributes
    ----------
    speedup : Interval
        Best dense over best planned: the median over the takes, and from the lowest to the highest of them, each
        widened by the typical interval within a take.
    """

    networks: tuple[NetworkTime, ...]
    best_dense: NetworkTime
    best_planned: NetworkTime
    speedup: Interval

    @property
    def is_faster(self) -> bool:
        """Whether the planned network beats the best dense one beyond doubt of the measurement."""
        return self.speedup.low > 1.0


def pool_takes(takes: Sequence[Take]) -> Pooled:
    """Pool the takes of the same networks; ways to run them that one take left out are left as the others have them."""
    times: dict[tuple[Variant, Host, Dtype], list[TimeStats]] = defaultdict(list)
    for each in takes:
        for time in each.networks:
            times[time.variant, time.host, time.dtype].append(time.time_s)
    networks = tuple(
        NetworkTime(variant=variant, host=host, dtype=dtype, time_s=pool(found))
        for (variant, host, dtype), found in times.items()
    )
    # The winners were measured in every take: later takes leave out only what is far slower.
    whole = [time for time in networks if len(times[time.variant, time.host, time.dtype]) == len(takes)]
    best_dense, best_planned = fastest(whole, "dense"), fastest(whole, "planned")
    dense, planned = (times[best.variant, best.host, best.dtype] for best in (best_dense, best_planned))
    ratios = [_ratio(a, b) for a, b in zip(dense, planned, strict=True)]
    medians = [ratio.median for ratio in ratios]
    below = float(np.median([ratio.low / ratio.median for ratio in ratios]))
    above = float(np.median([ratio.high / ratio.median for ratio in ratios]))
    return Pooled(
        networks=networks,
        best_dense=best_dense,
        best_planned=best_planned,
        speedup=Interval(median=float(np.median(medians)), low=below * min(medians), high=above * max(medians)),
    )


def _ratio(dense: TimeStats, planned: TimeStats) -> Interval:
    return Interval(median=dense.median / planned.median, low=dense.low / planned.high, high=dense.high / planned.low)
