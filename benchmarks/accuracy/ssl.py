"""SSL's experiments: LeNet on MNIST, ConvNet on CIFAR-10 and the depth of ResNet-20."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from sparseplan.kernels.groups import group_norms
from sparseplan.kernels.pattern import BlockPart, parse_pattern
from sparseplan.kernels.weight_view import weight_view
from sparseplan.model_spec import load_model
from sparseplan.planner.couple import couple
from sparseplan.trainer.assignment import Assignment, LayerSparsity, WidthSparsity
from sparseplan.trainer.store import load_weights

from .options import ExperimentOptions
from .variant import Variant, run_variants, weights_of

DENSE = "dense"
TAUGHT = {"distillation": 0.5, "learning_rate": 0.02}


def lenet(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """LeNet/MNIST; the paper's two points of each table (error 0.8 and 1.0 %; 0.9 % dense)."""
    recipe = {"batch_size": 128, "learning_rate": 0.02}
    variants = (
        Variant(name=DENSE, network=partial(_fresh, "zoo:lenet"), recipe=recipe),
        # Filters of conv1 and conv2; the channels of conv2 are the filters of conv1 (table 1).
        _widths("filters+channels 5-19", "zoo:lenet", {"conv1": 5, "conv2": 19}, options),
        _widths("filters+channels 3-12", "zoo:lenet", {"conv1": 3, "conv2": 12}, options),
        # Filter shapes left of 25 and 500 (table 2).
        _layers(
            "shapes 21-41", "zoo:lenet", {"conv1": ("shape", 1 - 21 / 25), "conv2": ("shape", 1 - 41 / 500)}, options
        ),
        _layers(
            "shapes 7-14", "zoo:lenet", {"conv1": ("shape", 1 - 7 / 25), "conv2": ("shape", 1 - 14 / 500)}, options
        ),
    )
    return run_variants(
        "lenet-ssl", variants, options.splits("mnist:mnist"), options=options, sizes=groups_left, say=say
    )


def convnet(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ConvNet/CIFAR-10, rows and columns: 50/28/2 % of the filters and 0/59/35 % of the columns removed (table 3)."""
    layers = {"conv1": (0.50, 0.0), "conv2": (0.28, 0.59), "conv3": (0.02, 0.35)}
    rows_and_columns = {name: _rows_and_columns(rows, columns) for name, (rows, columns) in layers.items()}
    variants = (
        Variant(name=DENSE, network=partial(_fresh, "zoo:convnet")),
        _layers("rows+columns", "zoo:convnet", rows_and_columns, options),
    )
    return run_variants(
        "convnet-ssl", variants, options.splits("cifar10:"), options=options, sizes=groups_left, say=say
    )


def resnet20_depth(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ResNet-20/CIFAR-10, whole blocks removed: 18 and 14 layers (table 4)."""
    start = partial(_stored, options, "resnet20")
    variants = (
        Variant(name=DENSE, network=start, recipe={"learning_rate": 0.01}),
        Variant(name="18 layers", network=start, assign=partial(_shallower, 1), recipe=TAUGHT),
        Variant(name="14 layers", network=start, assign=partial(_shallower, 3), recipe=TAUGHT),
    )
    return run_variants(
        "resnet20-depth", variants, options.splits("cifar10:"), options=options, sizes=groups_left, say=say
    )


def groups_left(model: nn.Module) -> dict[str, str]:
    """Filters and columns (filter shapes) that are not all zero, of each convolution that lost some."""
    found = {}
    filters, shapes = (parse_pattern(text).parts[0] for text in ("filter", "shape"))
    assert isinstance(filters, BlockPart)
    assert isinstance(shapes, BlockPart)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            weight = weight_view(module).detach()
            rows, columns = (group_norms(weight, part) > 0 for part in (filters, shapes))
            if not (rows.all() and columns.all()):
                found[name] = f"{int(rows.sum())}/{rows.numel()} filters, {int(columns.sum())}/{columns.numel()} shapes"
    return found


def _rows_and_columns(rows: float, columns: float) -> tuple[str, float]:
    """Pattern and sparsity of both; a plan gives one sparsity for the sum, and the parts share it evenly."""
    pattern = "+".join(name for name, share in (("filter", rows), ("shape", columns)) if share > 0)
    return pattern, 1.0 - (1.0 - rows) * (1.0 - columns)


def _fresh(spec: str, seed: int) -> nn.Module:
    return load_model(spec, seed=seed)


def _trained(spec: str, options: ExperimentOptions, seed: int) -> nn.Module:
    network = load_model(spec, seed=seed)
    load_weights(network, weights_of(DENSE, seed, options))
    return network


def _stored(options: ExperimentOptions, name: str, seed: int) -> nn.Module:
    network = load_model(f"zoo:{name}", seed=seed)
    load_weights(network, options.data / "weights" / f"{name}_cifar10jpeg.safetensors")
    return network


def _layers(name: str, spec: str, layers: dict[str, tuple[str, float]], options: ExperimentOptions) -> Variant:
    assignment = tuple(
        LayerSparsity(name=layer, pattern=parse_pattern(pattern), sparsity=sparsity)
        for layer, (pattern, sparsity) in layers.items()
        if pattern
    )
    return Variant(name=name, network=partial(_trained, spec, options), assign=lambda _: assignment, recipe=TAUGHT)


def _widths(name: str, spec: str, kept: dict[str, int], options: ExperimentOptions) -> Variant:
    def assign(model: nn.Module) -> Assignment:
        layers = [each for each, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        groups = couple(model.eval(), torch.zeros(1, 1, 28, 28), layers=layers).groups
        return tuple(WidthSparsity(group=group, kept=kept[group.name]) for group in groups if group.name in kept)

    return Variant(name=name, network=partial(_trained, spec, options), assign=assign, recipe=TAUGHT)


def _shallower(blocks: int, model: nn.Module) -> Assignment:
    """Take away the residual blocks that matter least: those whose branch adds the smallest weights to the shortcut."""
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    candidates = [name for name in layers if name.endswith("conv2") and _has_identity_shortcut(model, name)]
    strength = {name: float(_branch_gain(model, name)) for name in candidates}
    weakest = sorted(candidates, key=strength.__getitem__)[:blocks]
    depth = parse_pattern("filter")
    return tuple(
        LayerSparsity(name=layer, pattern=depth, sparsity=1.0)
        for name in weakest
        for layer in (name.replace("conv2", "conv1"), name)
    )


def _has_identity_shortcut(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]).shortcut, nn.Identity)


def _branch_gain(model: nn.Module, name: str) -> torch.Tensor:
    return model.get_submodule(name.replace("conv2", "bn2")).get_parameter("weight").detach().abs().mean()
