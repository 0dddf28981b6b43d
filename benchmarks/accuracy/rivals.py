"""What others would prune at the same predicted time, as plans: uniform sparsity, and one threshold for all weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from torch import nn

from benchmarks.networks.choose_rivals import Race, choose_by_magnitude, choose_uniform, make_race
from sparseplan.commands.elsewhere import machine_of
from sparseplan.kernels.registry import REGISTRY
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.planner.assemble import LayerWriter
from sparseplan.planner.candidates import join_loss, wanted_choices
from sparseplan.planner.capture import capture
from sparseplan.planner.example import random_example
from sparseplan.planner.make_plan import for_threads, machinery_of
from sparseplan.planner.network_time import Network, Picked, total_time
from sparseplan.planner.rest import rest_time
from sparseplan.planner.schema import Plan
from sparseplan.planner.sensitivity import estimate_sensitivity
from sparseplan.planner.time_options import time_options
from sparseplan.profiles.references import profile_file
from sparseplan.profiles.store import load_profile

PATTERN = "unstructured"
CHOICES: Mapping[str, Callable[[Race, nn.Module], Picked | None]] = {
    "uniform": lambda race, _: choose_uniform(race),
    "global magnitude": lambda race, model: choose_by_magnitude(race, model, PATTERN),
}
"""By the name of the row."""


class Rivals:
    """Plans of a model at the predicted time of other plans; what takes long is done at the first one.

    Parameters
    ----------
    profile : str
        Path or ``ref:NAME``.
    """

    def __init__(self, model: nn.Module, input_shape: tuple[int, ...], *, profile: str) -> None:
        self._model, self._shape = model.eval(), input_shape
        self._path = profile_file(profile)

    def plan(self, way: str, like: Plan) -> Plan | None:
        """Zeros in single weights, as `way` spreads them, at the predicted median time of another plan."""
        totals = like.totals
        race = make_race(self._network, totals.dense_time_s.median / totals.planned_time_s.median)
        picked = CHOICES[way](race, self._model)
        if picked is None:
            return None
        network = race.network
        layers = tuple(
            self._writer.layer_plan(layer, option) for layer, option in zip(network.layers, picked.layers, strict=True)
        )
        found = totals.model_copy(
            update={
                "dense_time_s": total_time(network, network.dense),
                "planned_time_s": total_time(network, picked),
                "loss_increase": network.loss(picked),
            }
        )
        return like.model_copy(
            update={
                "patterns": (PATTERN,),
                "layers": layers,
                "widths": (),
                "totals": found,
                "sensitivity_source": "magnitude",
                "solver": like.solver.model_copy(update={"status": "optimal", "message": f"{way}, not the planner's"}),
            }
        )

    @cached_property
    def _network(self) -> Network:
        profile = load_profile(self._path)
        captured = for_threads(capture(self._model, random_example(self._model, self._shape)), profile.threads)
        model = fit_performance_model(profile, REGISTRY)
        machinery = machinery_of(profile, model, machine=machine_of(profile, self._path), registry=REGISTRY)
        timed = time_options(captured.layers, [PATTERN], dtype_policy="float32", machinery=machinery)
        names = [layer.name for layer in captured.layers]
        losses = estimate_sensitivity(self._model, wanted_choices(timed.layers), layers=names)
        self._writer = LayerWriter(model)
        return Network(
            layers=join_loss(timed.layers, losses),
            widths=timed.widths,
            width_loss=(),
            rest=rest_time(captured, timed.form.dtype, machinery),
        )
