"""Guided sparsity learning against the same methods without a guide, on ConvNet and CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import nn

from sparseplan.commands.plan import plan as make_plan
from sparseplan.model_spec import load_model
from sparseplan.planner.store import load_plan
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.guided import GuideOptions, guided_assignment
from sparseplan.trainer.projection import LayerProjection, NetworkProjection, projection_of
from sparseplan.trainer.schema import GuideMethod
from sparseplan.trainer.store import load_weights

from .options import ExperimentOptions
from .variant import Variant, run_variants, weights_of

DENSE = "dense"
METHODS: tuple[GuideMethod, ...] = ("l1", "magnitude", "surgery")
SPEEDUP = 1.5
BATCH = 64
LEARNING_RATE = 0.02


def convnet_gsl(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ConvNet/CIFAR-10: L1, magnitude and surgery, guided and not (ESL, ...), to 1.5x; needs a profile."""
    data = options.splits("cifar10:")
    dense = dense_variant("convnet-gsl", data, options=options, say=say)
    bounds = projection(options)
    variants = [dense]
    for method in METHODS:
        for label, followed in (("guided", bounds), ("unguided", unguided(bounds))):
            guide = GuideOptions(projection=followed, method=method)
            assignment = guided_assignment(followed)
            variants.append(
                Variant(
                    name=f"{label} {method}",
                    network=partial(trained, options),
                    assign=lambda _, assignment=assignment: assignment,
                    recipe={"learning_rate": LEARNING_RATE, "distillation": 0.5, "guide": method},
                    guide=guide,
                )
            )
    return run_variants(
        "convnet-gsl", tuple(variants), data, options=options, sizes=partial(projected, bounds), say=say
    )


def dense_variant(
    experiment: str, data: DataSplits, *, options: ExperimentOptions, say: Callable[[str], None]
) -> Variant:
    """The dense ConvNet, trained: what is planned, and where the others start."""
    dense = Variant(name=DENSE, network=lambda seed: load_model("zoo:convnet", seed=seed))
    run_variants(experiment, (dense,), data, options=replace(options, only=()), say=say)
    return dense


def unguided(projection: NetworkProjection) -> NetworkProjection:
    """The same target and times, but every layer is pruned and none is stopped or restored."""
    return replace(projection, layers={name: _without_bounds(each) for name, each in projection.layers.items()})


def _without_bounds(layer: LayerProjection) -> LayerProjection:
    if layer.lower is None:
        return replace(layer, lower=0.0, upper=None, sparsities=(0.0, 1.0), times_s=(layer.dense_s, layer.dense_s))
    return replace(layer, lower=0.0, upper=None)


def projected(bounds: NetworkProjection, model: nn.Module) -> dict[str, str]:
    """Zeros of each layer that has some, and the speedup that they are projected to give."""
    zeros = {
        name: float((model.get_submodule(name).get_parameter("weight") == 0).double().mean()) for name in bounds.layers
    }
    left = {name: f"{100 * share:.0f} % zeros" for name, share in zeros.items() if share > 0.01}
    return left | {"projected": f"{bounds.dense_s / bounds.time_s(zeros):.2f}x"}


def projection(options: ExperimentOptions) -> NetworkProjection:
    """Of the dense network of the first seed, by a plan that is kept beside the results."""
    path = options.out / "plan.json"
    if not path.exists():
        make_plan(
            "zoo:convnet",
            (BATCH, 3, 32, 32),
            profile=options.machine_profile,
            out=path,
            weights=weights_of(DENSE, options.seeds[0], options),
            data=f"cifar10:{options.data}",
            target_speedup=SPEEDUP,
            patterns=("unstructured",),
            progress=options.progress,
        )
    return projection_of(load_plan(path))


def trained(options: ExperimentOptions, seed: int) -> nn.Module:
    """The dense network as its own training left it."""
    network = load_model("zoo:convnet", seed=seed)
    load_weights(network, weights_of(DENSE, seed, options))
    return network
