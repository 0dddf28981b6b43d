"""The solver's question for networks of the zoo on the machine of a reference profile; nothing is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sparseplan.commands.elsewhere import machine_of
from sparseplan.kernels.progress import silent
from sparseplan.kernels.registry import REGISTRY
from sparseplan.model_spec import load_model
from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.planner.candidates import join_loss, wanted_choices
from sparseplan.planner.capture import capture
from sparseplan.planner.couple import NO_COUPLING, couple
from sparseplan.planner.example import random_example
from sparseplan.planner.make_plan import for_threads, machinery_of
from sparseplan.planner.network_time import Network
from sparseplan.planner.rest import rest_time
from sparseplan.planner.schema import Target
from sparseplan.planner.sensitivity import estimate_sensitivity
from sparseplan.planner.targets import Question
from sparseplan.planner.time_options import time_options
from sparseplan.planner.width_loss import width_losses
from sparseplan.profiles.references import profile_file
from sparseplan.profiles.store import load_profile

PROFILE = "ref:zen5-2c"
SHAPES: dict[str, tuple[int, ...]] = {
    "resnet20": (64, 3, 32, 32),
    "resnet56": (64, 3, 32, 32),
    "resnet18": (1, 3, 224, 224),
    "resnet50": (1, 3, 224, 224),
    "mobilenet_v2": (1, 3, 224, 224),
    "vit_small": (1, 3, 224, 224),
}
PATTERNS = (
    "unstructured", "block:16x1", "block:16x32", "filter", "channel", "shape", "filter+shape", "filter2d", "depth",
    "2:4", "channel+block:16x1",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """A question, and how long it took to predict all options."""

    question: Question
    predict_s: float


def real_question(name: str, *, coupled: bool) -> Real:
    """Random weights, whose losses stand for those of trained ones: shares of squared weights that go."""
    path = profile_file(PROFILE)
    profile = load_profile(path)
    model = load_model(f"zoo:{name}").eval()
    example = random_example(model, SHAPES[name])
    captured = for_threads(capture(model, example), profile.threads)
    names = [layer.name for layer in captured.layers]
    performance_model = fit_performance_model(profile, REGISTRY)
    machinery = machinery_of(profile, performance_model, machine=machine_of(profile, path), registry=REGISTRY)
    coupling = couple(model, example, layers=names) if coupled else NO_COUPLING
    start = time.perf_counter()
    timed = time_options(
        captured.layers,
        PATTERNS,
        dtype_policy="float32",
        machinery=machinery,
        groups=coupling.groups,
    )
    predict_s = time.perf_counter() - start
    sensitivity = estimate_sensitivity(
        model, wanted_choices(timed.layers), layers=names, calibration=None, budget_s=0.0, progress=silent
    )
    network = Network(
        layers=join_loss(timed.layers, sensitivity),
        widths=timed.widths,
        width_loss=width_losses(model, timed.widths.groups, calibration=None, budget_s=0.0, progress=silent),
        rest=rest_time(captured, timed.form.dtype, machinery, timed.widths.groups),
    )
    question = Question(network=network, target=Target(speedup=1.0), batch=example.shape[0], other_bytes=0.0)
    return Real(question=question, predict_s=predict_s)
