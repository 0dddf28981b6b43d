"""SAS against ReLU, a wider network and N:M weights, on CIFAR-10."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from sparseplan.kernels.pattern import parse_pattern
from sparseplan.model_spec import load_model
from sparseplan.trainer.assignment import Assignment, LayerSparsity
from sparseplan.trainer.sas import convert
from sparseplan.trainer.store import load_weights

from .options import ExperimentOptions
from .variant import Variant, run_variants

RECIPE = {"learning_rate": 0.02}


def resnet20_sas(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ResNet-20/CIFAR-10: ReLU, SAS 1:2 and 1:4, SWS 2:4, each trained on from the same ReLU network."""
    return _run("resnet20", "resnet20-sas", options, say)


def convnet_sas(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """A plain ConvNet/CIFAR-10 from scratch: ReLU, SAS 1:2 and 1:4, SWS 2:4."""
    return _run("convnet", "convnet-sas", options, say)


def _run(name: str, experiment: str, options: ExperimentOptions, say: Callable[[str], None]) -> str:
    start = partial(_start, options, name)
    variants = (
        Variant(name="relu", network=start, recipe=RECIPE),
        Variant(name="sas 1:2", network=partial(_under_sas, start, 2), recipe=RECIPE),
        Variant(name="sas 1:4", network=partial(_under_sas, start, 4), recipe=RECIPE),
        Variant(name="sws 2:4 sr-ste", network=start, assign=_two_of_four, recipe=RECIPE),
        Variant(name="sws 2:4 asp", network=start, assign=_two_of_four, recipe={**RECIPE, "nm": "asp"}),
    )
    return run_variants(experiment, variants, options.splits("cifar10:"), options=options, say=say)


def _start(options: ExperimentOptions, name: str, seed: int) -> nn.Module:
    network = load_model(f"zoo:{name}", seed=seed)
    stored = options.data / "weights" / f"{name}_cifar10jpeg.safetensors"
    if stored.exists():
        load_weights(network, stored)
    return network


def _under_sas(start: Callable[[int], nn.Module], slots: int, seed: int) -> nn.Module:
    return convert(start(seed), slots)


def _two_of_four(model: nn.Module) -> Assignment:
    return tuple(
        LayerSparsity(name=name, pattern=parse_pattern("2:4"), sparsity=0.5)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels >= 4
    )
