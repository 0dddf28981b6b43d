"""The guide of sparsity learning: which layers are worth pruning, decided while their sparsity grows.

Three rules, of which the second and third act during training:

- a layer whose kernel never beats the dense one is never pruned;
- above its upper bound more zeros gain nothing: stop, and keep the zeros;
- a sparsity that has *stabilised* under the lower bound costs accuracy and time: stop, and restore the dense weights.

A sparsity has stabilised when it changed by less than `STABLE_CHANGE` over the last `WINDOW` observations; the paper
does not define it.

References
----------
Park et al., Faster CNNs with Direct Sparse Convolutions and Guided Pruning, ICLR 2017, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .projection import NetworkProjection
from .schema import GuideAction, GuideDecision

WINDOW = 4
"""Observations that must agree; they lie `guided.OBSERVE_EVERY` steps apart."""
STABLE_CHANGE = 0.005
"""Largest change of a sparsity that counts as none: half a point."""


def stabilised(history: Sequence[float]) -> bool:
    """Whether the last observations of a sparsity agree; those from before it began to grow do not count."""
    last = [sparsity for sparsity in history if sparsity > STABLE_CHANGE][-WINDOW:]
    return len(last) == WINDOW and max(last) - min(last) < STABLE_CHANGE


class Guide:
    """Watches the sparsity of layers and decides; each layer is decided on once.

    Parameters
    ----------
    projection : NetworkProjection
        Bounds and projected times.
    """

    def __init__(self, projection: NetworkProjection) -> None:
        self._projection = projection
        self.histories: dict[str, list[float]] = {name: [] for name in projection.layers}
        self.decisions: list[GuideDecision] = []
        for name, layer in projection.layers.items():
            if layer.lower is None:
                self._decide(name, "never", 0.0, 0, f"{layer.kernel} is as fast at any sparsity")

    @property
    def open_layers(self) -> tuple[str, ...]:
        """Layers that are still pruned."""
        decided = {decision.layer for decision in self.decisions}
        return tuple(name for name in self._projection.layers if name not in decided)

    def observe(self, sparsity: Mapping[str, float], *, step: int, last: bool = False) -> tuple[GuideDecision, ...]:
        """Take the present sparsities in; what is decided by them.

        Parameters
        ----------
        last : bool
            Pruning ends: a sparsity under its lower bound counts as stabilised.
        """
        before = len(self.decisions)
        for name in self.open_layers:
            seen, layer = sparsity[name], self._projection.layers[name]
            history = self.histories[name]
            history.append(seen)
            assert layer.lower is not None
            if layer.upper is not None and seen >= layer.upper:
                self._decide(name, "stop", seen, step, f"above {layer.upper:.3f} more zeros gain nothing")
            elif seen < layer.lower and (last or stabilised(history)):
                settled = "pruning ended" if last and not stabilised(history) else "its sparsity stabilised"
                self._decide(name, "restore", seen, step, f"{settled} under {layer.lower:.3f}, where it starts to gain")
        return tuple(self.decisions[before:])

    def restore(self, decisions: Sequence[GuideDecision], histories: Mapping[str, Sequence[float]]) -> None:
        """Go back to an earlier state."""
        self.decisions = list(decisions)
        self.histories = {name: list(histories.get(name, ())) for name in self._projection.layers}

    def _decide(self, name: str, action: GuideAction, sparsity: float, step: int, reason: str) -> None:
        self.decisions.append(
            GuideDecision(
                step=step,
                layer=name,
                action=action,
                sparsity=sparsity,
                projected_speedup=self._projection.layers[name].speedup(sparsity),
                reason=reason,
            )
        )
