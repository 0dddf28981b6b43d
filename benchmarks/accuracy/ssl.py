"""SSL's experiments: LeNet on MNIST, ConvNet on CIFAR-10 and the depth of ResNet-20."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from sparseplan.commands.plan import CALIBRATION_IMAGES, calibration_of
from sparseplan.kernels.groups import group_norms
from sparseplan.kernels.pattern import BlockPart, parse_pattern
from sparseplan.kernels.weight_view import weight_view
from sparseplan.model_spec import load_model
from sparseplan.planner.calibration import label, sample_losses
from sparseplan.planner.couple import couple
from sparseplan.planner.eval_mode import evaluating
from sparseplan.planner.schema import WidthGroup
from sparseplan.planner.width_loss import narrowed_for_a_while
from sparseplan.trainer.assignment import Assignment, LayerSparsity, WidthSparsity
from sparseplan.trainer.data import DataSplits
from sparseplan.trainer.store import load_weights

from .options import ExperimentOptions
from .variant import Variant, run_variants, weights_of

DENSE = "dense"
CIFAR, MNIST = (3, 32, 32), (1, 28, 28)
ROWS = {"conv1": 0.50, "conv2": 0.28, "conv3": 0.02}
COLUMNS = (0.59, 0.35)
"""Of conv2 and conv3; conv1 has three channels."""
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
    variants = (
        Variant(name=DENSE, network=partial(_fresh, "zoo:convnet")),
        Variant(name="rows+columns", network=partial(_trained, "zoo:convnet", options), assign=_table_3, recipe=TAUGHT),
    )
    return run_variants(
        "convnet-ssl", variants, options.splits("cifar10:"), options=options, sizes=groups_left, say=say
    )


def resnet20_depth(options: ExperimentOptions, *, say: Callable[[str], None]) -> str:
    """ResNet-20/CIFAR-10, whole blocks removed: 18 and 14 layers (table 4)."""
    data = options.splits("cifar10:")
    start = partial(stored, options, "resnet20")
    variants = (
        Variant(name=DENSE, network=start, recipe={"learning_rate": 0.01}),
        Variant(name="18 layers", network=start, assign=partial(shallower, 1, data), recipe=TAUGHT),
        Variant(name="14 layers", network=start, assign=partial(shallower, 3, data), recipe=TAUGHT),
    )
    return run_variants("resnet20-depth", variants, data, options=options, sizes=groups_left, say=say)


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


def _table_3(model: nn.Module) -> Assignment:
    """Rows are the filters of a convolution, which the next one no longer reads; columns go in what that leaves.

    So the columns of conv2 and conv3 that the paper counts as removed include those of removed filters.
    """
    groups = width_groups(model, CIFAR)
    kept = {name: round((1.0 - gone) * groups[name].units) for name, gone in ROWS.items()}
    columns = []
    for (before, name), gone in zip((("conv1", "conv2"), ("conv2", "conv3")), COLUMNS, strict=True):
        weight = model.get_submodule(name).get_parameter("weight")
        readable = kept[before] * weight[0, 0].numel()
        left = round((1.0 - gone) * weight[0].numel())
        columns.append(
            LayerSparsity(name=name, pattern=parse_pattern("shape"), sparsity=max(0.0, 1.0 - left / readable))
        )
    return (*(WidthSparsity(group=groups[name], kept=count) for name, count in kept.items()), *columns)


def width_groups(model: nn.Module, image: tuple[int, ...]) -> dict[str, WidthGroup]:
    """The channels that layers share, by the layer that makes them; `image` is [C, H, W]."""
    layers = [each for each, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with evaluating(model):
        groups = couple(model, torch.zeros(2, *image), layers=layers).groups
    return {group.name: group for group in groups}


def _fresh(spec: str, seed: int) -> nn.Module:
    return load_model(spec, seed=seed)


def _trained(spec: str, options: ExperimentOptions, seed: int) -> nn.Module:
    network = load_model(spec, seed=seed)
    load_weights(network, weights_of(DENSE, seed, options))
    return network


def stored(options: ExperimentOptions, name: str, seed: int) -> nn.Module:
    """A network of the zoo with the weights that lie beside the data."""
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
        groups = width_groups(model, MNIST)
        return tuple(WidthSparsity(group=groups[layer], kept=count) for layer, count in kept.items())

    return Variant(name=name, network=partial(_trained, spec, options), assign=assign, recipe=TAUGHT)


def shallower(blocks: int, data: DataSplits, model: nn.Module) -> Assignment:
    """Take away residual blocks, one after the other the one without which the validation loss rises least.

    (Small weights of the branch's last batch norm say little: of a trained ResNet-20 the block with the third least
    mean is the one whose loss hurts most, 32 % accuracy without it.)
    """
    removable = [group for group in width_groups(model, CIFAR).values() if _has_identity_shortcut(model, group)]
    gone: list[WidthGroup] = []
    with evaluating(model):
        images = label(model, calibration_of(data, CALIBRATION_IMAGES))

        def loss_without(group: WidthGroup) -> float:
            with narrowed_for_a_while(model, [(each, ()) for each in (*gone, group)]):
                return float(sample_losses(model, images).mean())

        for _ in range(blocks):
            gone.append(min((each for each in removable if each not in gone), key=loss_without))
    return tuple(WidthSparsity(group=group, kept=0) for group in gone)


def _has_identity_shortcut(model: nn.Module, group: WidthGroup) -> bool:
    return bool(group.branch) and isinstance(_block(model, group).get_submodule("shortcut"), nn.Identity)


def _block(model: nn.Module, group: WidthGroup) -> nn.Module:
    return model.get_submodule(group.name.rpartition(".")[0])
