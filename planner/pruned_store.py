"""Pruned layers as files: one for each layer and pattern, and one that says what they were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..kernels.documents import read_document, write_atomic, write_document
from ..kernels.errors import InputError
from .schema import PrunedOrigin, StoredSensitivity

MANIFEST = "database.json"
SENSITIVITY = "sensitivity.json"
_LARGEST_HALF = 6e4
_DIFFERS = {"weights_sha256": "other weights", "calibration_sha256": "other data", "method": "other settings"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredLevel:
    """One pruned weight: which are kept, one bit a weight, and the values of those, in half precision.

    Half precision errs by 0.05 % of a value, far below what removing its neighbours does to it.

    Attributes
    ----------
    bits : Tensor
        uint8, the mask of the flattened weight.
    values : Tensor
        float16 (float32 where that would overflow), in order.
    error : Tensor
        [K] float32.
    """

    bits: Tensor
    values: Tensor
    error: Tensor

    @classmethod
    def of(cls, weight: Tensor, error: Tensor) -> StoredLevel:
        flat = weight.detach().flatten()
        kept = flat != 0
        values = flat[kept]
        if not bool((values.abs() > _LARGEST_HALF).any()):
            values = values.half()
        return cls(bits=torch.from_numpy(np.packbits(kept.numpy())), values=values, error=error.float())

    def weight(self, shape: tuple[int, ...]) -> Tensor:
        """[K, C, R, S] float32."""
        found = torch.zeros(shape).flatten()
        kept = np.unpackbits(self.bits.numpy(), count=len(found)).astype(bool)
        found[torch.from_numpy(kept)] = self.values.float()
        return found.reshape(shape)


def bytes_of(shape: tuple[int, ...], sparsity: float) -> float:
    """What one level takes in its file, about."""
    count = float(np.prod(shape))
    return 2.0 * (1.0 - sparsity) * count + count / 8.0 + 4.0 * shape[0]


class PrunedStore:
    """A folder of pruned layers; what was read stays in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[tuple[str, str], Mapping[float, StoredLevel]] = {}

    def open(self, origin: PrunedOrigin) -> None:
        """Begin a database, or go on with one that was made from the same things.

        Raises
        ------
        InputError
            If the folder holds a database of other weights, data or settings, or cannot be written.
        """
        path = self.folder / MANIFEST
        if path.exists():
            found = self.origin()
            differs = [text for name, text in _DIFFERS.items() if getattr(found, name) != getattr(origin, name)]
            if differs:
                raise InputError(
                    f"{self.folder} holds pruned layers of {' and '.join(differs)}; give another --database, "
                    "or delete the folder to make it again"
                )
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {self.folder}: {error.strerror}; give a folder that can be made") from None
        write_document(path, origin)

    def origin(self) -> PrunedOrigin:
        """What the database was made from.

        Raises
        ------
        InputError
            If there is none.
        """
        return read_document(self.folder / MANIFEST, PrunedOrigin, kind="database of pruned layers")

    def has(self, layer: str, pattern: str, sparsities: Sequence[float]) -> bool:
        return set(sparsities) <= set(self._load(layer, pattern))

    def level(self, layer: str, pattern: str, sparsity: float) -> StoredLevel:
        return self._load(layer, pattern)[sparsity]

    def save(self, layer: str, pattern: str, levels: Mapping[float, StoredLevel]) -> None:
        """Write the levels of a layer and pattern, whole or not at all; levels that are there already stay."""
        together = dict(sorted({**self._load(layer, pattern), **levels}.items()))
        tensors = {
            f"{name}.{number}": tensor
            for number, level in enumerate(together.values())
            for name, tensor in (("bits", level.bits), ("values", level.values), ("error", level.error))
        }
        header = {"layer": layer, "pattern": pattern, "sparsities": json.dumps(list(together))}
        write_atomic(self._path(layer, pattern), lambda path: save_file(tensors, path, header))
        self._known[layer, pattern] = together

    def _load(self, layer: str, pattern: str) -> Mapping[float, StoredLevel]:
        key = layer, pattern
        path = self._path(layer, pattern)
        if key not in self._known:
            if not path.exists():
                return {}
            try:
                with safe_open(path, framework="pt") as file:
                    sparsities = json.loads((file.metadata() or {})["sparsities"])
                    self._known[key] = {
                        float(sparsity): StoredLevel(
                            **{name: file.get_tensor(f"{name}.{number}") for name in ("bits", "values", "error")}
                        )
                        for number, sparsity in enumerate(sparsities)
                    }
            except (SafetensorError, OSError, KeyError, ValueError) as error:
                raise InputError(f"{path} is no file of pruned layers: {error}; delete it to make it again") from None
        return self._known[key]

    def _path(self, layer: str, pattern: str) -> Path:
        return self.folder / f"{layer}--{pattern.replace(':', '-')}.safetensors"

    def load_sensitivity(self) -> StoredSensitivity | None:
        """The losses that were estimated with these layers, if they were."""
        path = self.folder / SENSITIVITY
        return read_document(path, StoredSensitivity, kind="sensitivity") if path.exists() else None

    def save_sensitivity(self, found: StoredSensitivity) -> None:
        write_document(self.folder / SENSITIVITY, found)
