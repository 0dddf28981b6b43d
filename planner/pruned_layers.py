"""The database of pruned layers: every layer at every pattern and level that a plan may choose, with its error."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.pattern import parse_pattern
from ..kernels.progress import Progress, silent
from .ablation import WeightChoice
from .calibration import Calibration
from .eval_mode import evaluating
from .layer_gram import layer_grams
from .layer_weights import layer_weight
from .pruned_store import PrunedStore, StoredLevel, bytes_of
from .removal import (
    DAMPING_FRAC,
    EXACT_FLOP,
    NM_STEPS,
    ONE_BY_ONE,
    SHARED_STEP_FRAC,
    STEP_FRAC,
    remove_weights,
)
from .schema import PrunedOrigin

MOST_STORED_BYTES = 4 << 30
"""Masks and refitted weights are stored, not the second moments they follow from: those of a ResNet-50 take 700 MB and
hours of factorisations stand between them and the weights, while the weights of six patterns take 1 GB."""
_METHOD = f"removal 2 {DAMPING_FRAC} {STEP_FRAC} {ONE_BY_ONE} {EXACT_FLOP} {SHARED_STEP_FRAC} {NM_STEPS}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedLayers:
    """Pruned layers by choice, read from their files when they are first asked for."""

    store: PrunedStore
    shapes: Mapping[str, tuple[int, ...]]

    def weight(self, choice: WeightChoice) -> Tensor:
        """The refitted weight, [K, C, R, S] float32."""
        return self._level(choice).weight(self.shapes[choice.layer])

    def error(self, choice: WeightChoice) -> Tensor:
        """[K]: squared change of the layer's output, summed over positions, mean over the images."""
        return self._level(choice).error

    def _level(self, choice: WeightChoice) -> StoredLevel:
        return self.store.level(choice.layer, choice.pattern, choice.sparsity)


def prune_layers(
    model: nn.Module,
    choices: Sequence[WeightChoice],
    *,
    calibration: Calibration,
    store: PrunedStore,
    progress: Progress = silent,
) -> PrunedLayers:
    """Remove weights from each layer for every choice, but for those that the store has already.

    Each layer and pattern is a file of its own, written when it is done: an interrupted run goes on behind the last.

    Raises
    ------
    InputError
        If the store was made for other weights, data or settings, or would grow beyond its limit.
    """
    levels: dict[tuple[str, str], list[float]] = defaultdict(list)
    for choice in sorted(set(choices)):
        levels[choice.layer, choice.pattern].append(choice.sparsity)
    shapes = {name: tuple(layer_weight(model, name).shape) for name, _ in levels}
    _check_size(shapes, choices)
    store.open(origin_of(model, calibration))
    missing = {key: wanted for key, wanted in levels.items() if not store.has(*key, wanted)}
    by_layer: dict[str, list[str]] = defaultdict(list)
    for name, pattern in missing:
        by_layer[name].append(pattern)
    work = {key: _work(shapes[key[0]], model.get_submodule(key[0])) for key in missing}
    done, total = 0.0, sum(work.values())
    with evaluating(model):
        for name, gram in layer_grams(model, list(by_layer), calibration.images, progress=progress):
            weight = layer_weight(model, name)
            for pattern in by_layer[name]:
                progress("pruned layers", done, total)
                found = remove_weights(weight, gram, parse_pattern(pattern), missing[name, pattern])
                store.save(name, pattern, {each.sparsity: StoredLevel.of(each.weight, each.error) for each in found})
                done += work[name, pattern]
    if missing:
        progress("pruned layers", total, total)
    return PrunedLayers(store=store, shapes=shapes)


def read_layers(model: nn.Module, choices: Sequence[WeightChoice], *, folder: Path) -> dict[str, Tensor]:
    """Refitted weights [K, C, R, S] from a database, by layer.

    Raises
    ------
    InputError
        If there is no database, it was made from other weights than the model's, or it lacks a choice.
    """
    store = PrunedStore(folder)
    if store.origin().weights_sha256 != _weights_sha256(model):
        raise InputError(
            f"{folder} holds pruned layers of other weights than the model has; give the dense weights that it was "
            "planned with, or plan without --database"
        )
    for choice in choices:
        if not store.has(choice.layer, choice.pattern, [choice.sparsity]):
            raise InputError(
                f"{folder} has no layer {choice.layer!r} with {choice.pattern} at {choice.sparsity:g}; "
                "plan again with that --database, or without"
            )
    pruned = PrunedLayers(
        store=store, shapes={choice.layer: tuple(layer_weight(model, choice.layer).shape) for choice in choices}
    )
    return {choice.layer: pruned.weight(choice) for choice in choices}


def origin_of(model: nn.Module, calibration: Calibration) -> PrunedOrigin:
    """What a database depends on, as fingerprints."""
    truth = () if calibration.labels is None else (calibration.labels,)
    return PrunedOrigin(
        weights_sha256=_weights_sha256(model),
        calibration_sha256=_sha256((str(number), each) for number, each in enumerate((calibration.images, *truth))),
        method=_METHOD,
    )


def _weights_sha256(model: nn.Module) -> str:
    return _sha256((name, tensor) for name, tensor in sorted(model.state_dict().items()))


def _sha256(tensors: Iterator[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_size(shapes: Mapping[str, tuple[int, ...]], choices: Sequence[WeightChoice]) -> None:
    size = sum(bytes_of(shapes[choice.layer], choice.sparsity) for choice in set(choices))
    if size > MOST_STORED_BYTES:
        raise InputError(
            f"the database of pruned layers would take {size / 1e9:.1f} GB, allowed are {MOST_STORED_BYTES / 1e9:.1f}; "
            "give fewer --patterns, or plan without --database"
        )


def _work(shape: tuple[int, ...], module: nn.Module) -> float:
    """About how long a pattern takes, in units of nothing in particular: rows times a factorisation."""
    rows, depth = shape[0], shape[1] * shape[2] * shape[3]
    return float(rows * depth**2 * min(depth, 256) + 1e6)
