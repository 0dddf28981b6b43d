"""What each way of choosing loses at one and the same measured time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .choose_rivals import Floats

DENSE = "dense"


def at_equal_time(table: pd.DataFrame) -> pd.DataFrame:
    """Test loss of each way by pattern and target, at the speedup that the slowest plan of the target was measured at.

    A way's loss is read off the line through its own plans and the dense network, over the time measured as a share of
    the dense network measured beside it; its plans that miss a target (no time) are left out.

    Parameters
    ----------
    table : DataFrame
        One row a plan, with ``pattern``, ``target``, ``way``, ``measured_s`` and ``test_loss``.

    Returns
    -------
    DataFrame
        One row a pattern and target: the speedup at which they are compared, and a column for each way.
    """
    shares = table.merge(
        table[table.way == DENSE][["pattern", "target", "measured_s"]].rename(columns={"measured_s": "dense_s"}),
        on=["pattern", "target"],
    )
    shares["share"] = shares.measured_s / shares.dense_s
    rows = []
    for (pattern, target), beside in shares[shares.way != DENSE].groupby(["pattern", "target"]):
        share = float(beside.share.max())
        of_pattern = shares[shares.pattern == pattern]
        dense_loss = float(of_pattern[of_pattern.way == DENSE].test_loss.mean())
        losses = {
            way: _loss_at(share, own.share.to_numpy(), own.test_loss.to_numpy(), dense_loss)
            for way, own in of_pattern[of_pattern.way != DENSE].dropna(subset=["share"]).groupby("way")
        }
        rows.append({"pattern": pattern, "target": target, "measured_speedup": 1.0 / share, **losses})
    return pd.DataFrame(rows)


def _loss_at(share: float, shares: Floats, losses: Floats, dense_loss: float) -> float:
    """NaN where no plan of the way is as fast."""
    order = np.argsort(shares)
    return float(np.interp(share, np.append(shares[order], 1.0), np.append(losses[order], dense_loss), left=np.nan))
