"""A trained network in one file: its weights without their zeros, and the plan they were trained to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from ..kernels.errors import InputError
from ..kernels.lowrank import TOLERANCES, factorise, least_ranks, multiply_factors
from ..kernels.pattern import DENSE, LOW_RANK
from ..planner.schema import Plan
from ..trainer.int8_layers import int8_layers, stored_weight
from ..trainer.store import read_safetensors, write_tensors
from ..trainer.weights import fill_model

_PLAN = "sparseplan.plan"
_SHAPE, _KEPT, _VALUES = "/shape", "/kept", "/values"
"""Of a sparse tensor: its shape, one bit a weight, and the weights that are not zero, in that order."""
_SCALE = "/scale"
"""Of a weight that is stored in int8: float32, [K], real = scale_k * stored; kernels make the same integers of it."""
_FACTOR = "/factor/"
"""Of a tensor of low rank: its shape, and by their number the thin ones that give it when multiplied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeights:
    """What the file holds, zeros included again."""

    plan: Plan
    tensors: dict[str, Tensor]
    source: str

    def fill(self, model: nn.Module) -> None:
        """Copy the weights into a model.

        Raises
        ------
        InputError
            If names or shapes differ; names them.
        """
        fill_model(model, self.tensors, source=self.source)


def save_packed(path: Path, model: nn.Module, plan: Plan) -> None:
    """Write the weights of a model that carry a plan's zeros, and the plan, as safetensors.

    The form depends on no machine: loading packs for the one at hand. Weights of low rank are written as their factors,
    and come back but for rounding; those of int8 layers as the integers that their kernels use.
    """
    in_int8 = {f"{name}.weight" for name in int8_layers(plan)}
    planned = {f"{layer.name}.weight": layer for layer in plan.layers if layer.chosen.pattern != DENSE.text}
    tensors: dict[str, Tensor] = {}
    for name, given in model.state_dict().items():
        tensor = given
        if name in in_int8:
            tensor, tensors[name + _SCALE] = stored_weight(given)
        if name in planned and planned[name].chosen.pattern == LOW_RANK:
            tensors[name + _SHAPE] = torch.tensor(tensor.shape)
            weight = tensor.view(planned[name].full_problem.weight_shape)
            for number, factor in enumerate(factorise(weight, least_ranks(weight, TOLERANCES["float32"]))):
                tensors[f"{name}{_FACTOR}{number}"] = factor.float().contiguous()
        elif name in planned:
            kept = tensor != 0
            tensors[name + _SHAPE] = torch.tensor(tensor.shape)
            tensors[name + _KEPT] = torch.from_numpy(np.packbits(kept.numpy().ravel()))
            tensors[name + _VALUES] = tensor[kept]
        else:
            tensors[name] = tensor
    write_tensors(path, tensors, metadata={_PLAN: plan.model_dump_json()})


def load_packed(path: Path) -> PackedWeights:
    """Read what `save_packed` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, or has no plan in it.
    """
    stored, texts = read_safetensors(path)
    if _PLAN not in texts:
        raise InputError(f"{path} holds no plan beside its weights; give a file made by 'sparseplan export'")
    try:
        plan = Plan.model_validate_json(texts[_PLAN])
    except ValidationError:
        raise InputError(f"the plan inside {path} is of another version of sparseplan; export the run again") from None
    parts = (_SHAPE, _KEPT, _VALUES, _SCALE)
    tensors = {name: each for name, each in stored.items() if not name.endswith(parts) and _FACTOR not in name}
    for name in stored:
        if name.endswith(_FACTOR + "0"):
            tensors[name.removesuffix(_FACTOR + "0")] = _multiplied(stored, name.removesuffix(_FACTOR + "0"), path)
        if name.endswith(_VALUES):
            tensors[name.removesuffix(_VALUES)] = _unpacked(stored, name.removesuffix(_VALUES), path)
    for name in stored:
        if name.endswith(_SCALE):
            tensors[name.removesuffix(_SCALE)] = _scaled(tensors, stored[name], name.removesuffix(_SCALE), path)
    return PackedWeights(plan=plan, tensors=tensors, source=f"weights {path}")


def _multiplied(stored: dict[str, Tensor], name: str, path: Path) -> Tensor:
    factors = [stored[key] for key in sorted(key for key in stored if key.startswith(name + _FACTOR))]
    try:
        return multiply_factors([each.double() for each in factors]).float().view(stored[name + _SHAPE].tolist())
    except (KeyError, RuntimeError):
        raise InputError(f"{path} is damaged: parts of {name} do not fit together; export the run again") from None


def _scaled(tensors: dict[str, Tensor], scale: Tensor, name: str, path: Path) -> Tensor:
    weight = tensors.get(name)
    if weight is None or weight.shape[:1] != scale.shape:
        raise InputError(f"{path} is damaged: parts of {name} do not fit together; export the run again")
    return weight.float() * scale.view(-1, *[1] * (weight.dim() - 1))


def _unpacked(stored: dict[str, Tensor], name: str, path: Path) -> Tensor:
    shape, bits, values = (stored.get(name + part) for part in (_SHAPE, _KEPT, _VALUES))
    if shape is None or bits is None or values is None:
        raise InputError(f"{path} is damaged: parts of {name} are missing; export the run again")
    kept = torch.from_numpy(np.unpackbits(bits.numpy(), count=int(shape.prod()))).bool()
    if int(kept.sum()) != values.numel():
        raise InputError(f"{path} is damaged: the weights of {name} do not match its mask; export the run again")
    return torch.zeros(kept.numel(), dtype=values.dtype).masked_scatter_(kept, values).view(shape.tolist())
