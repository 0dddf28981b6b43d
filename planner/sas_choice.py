"""Put layers under structured activation sparsification: told, not chosen, for what it is worth is learnt in training.

A layer under SAS 1:m computes at first what it did, at no less time, and has m times the weights to learn with. No loss
that can be measured before training speaks for it, and no target on time does: a plan gets it where it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from ..kernels.errors import UnsupportedError
from .ablation import WeightChoice
from .candidates import LayerCandidates, Option, join_loss, wanted_choices
from .capture import Captured
from .network_time import Network, Picked, sure_speedup, total_time
from .options import Machinery
from .rest import rest_time
from .schema import DtypePolicy, SolverReport, Target
from .sensitivity import estimate_sensitivity
from .stored_bytes import other_bytes
from .targets import Decision, Question
from .time_options import time_options


def decide_sas(
    model: nn.Module,
    captured: Captured,
    under_sas: Mapping[str, str],
    *,
    batch: int,
    dtype_policy: DtypePolicy,
    machinery: Machinery,
) -> tuple[Question, Decision]:
    """Each of these layers under its pattern on its fastest kernel, all others dense.

    Parameters
    ----------
    under_sas : mapping
        From layer to ``sas:1:m``; those that cannot be planned, or that no kernel can run, stay dense.

    Raises
    ------
    UnsupportedError
        If no kernel can run any of them.
    """
    layers = captured.layers
    names = [layer.name for layer in layers]
    patterns = tuple(dict.fromkeys(under_sas.values()))
    timed = time_options(layers, patterns, dtype_policy=dtype_policy, machinery=machinery)
    # The outputs stay the same until it is trained.
    unchanged: dict[WeightChoice, float] = dict.fromkeys(wanted_choices(timed.layers), 0.0)
    sensitivity = replace(estimate_sensitivity(model, (), layers=names), loss=unchanged)
    told = [_told(layer, under_sas.get(layer.layer.name)) for layer in join_loss(timed.layers, sensitivity)]
    count = sum(len(layer.options) > 1 for layer in told)
    if count == 0:
        raise UnsupportedError(f"no kernel of this machine runs {', '.join(patterns)} in any of these layers")
    rest = rest_time(captured, timed.form.dtype, machinery)
    network = Network(layers=tuple(told), widths=timed.widths, width_loss=(), rest=rest)
    picked = Picked(layers=tuple(layer.options[-1] for layer in told), kept=())
    slower = total_time(network, picked).median / total_time(network, network.dense).median
    report = SolverReport(
        status="optimal",
        message=(
            f"{count} layers under {', '.join(patterns)}, as asked: {slower:.2f} times the time of the dense network; "
            "what it is worth in accuracy, training shows"
        ),
        objective=None,
        bound=None,
        gap_frac=None,
        time_s=0.0,
    )
    question = Question(network=network, target=Target(), batch=batch, other_bytes=other_bytes(model, names))
    return question, Decision(picked=picked, report=report, best_reachable_speedup=sure_speedup(network, picked))


def _told(layer: LayerCandidates, pattern: str | None) -> LayerCandidates:
    """With the dense option, and behind it the fastest under that pattern."""
    found = [option for option in (*layer.options, *layer.losers) if option.candidate.pattern == pattern]
    return replace(layer, options=(layer.dense, *_fastest(found)), losers=())


def _fastest(options: Sequence[Option]) -> tuple[Option, ...]:
    return (min(options, key=lambda option: option.candidate.time_s.high),) if options else ()
