"""Tensors by name, checked and copied into a model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..kernels.errors import InputError

_COUNTER = "num_batches_tracked"
"""A batch-norm's step counter, which many exports leave out and which no result depends on."""


def fill_model(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy tensors into a model whose parameters and buffers they match by name and shape.

    Raises
    ------
    InputError
        If they do not match, or a value is NaN or infinite; `source` begins the message.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith(_COUNTER)]
    unexpected = [name for name in tensors if name not in own]
    reshaped = [
        f"{name} {list(tensors[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    complaints = [
        f"{what} {_listed(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if complaints:
        raise InputError(
            f"{source}: no fit for {type(model).__name__}, {'; '.join(complaints)}; give weights of this very model"
        )
    refuse_non_finite(tensors, source=source)
    model.load_state_dict({**own, **tensors})


def refuse_non_finite(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Check that all values are finite.

    Raises
    ------
    InputError
        If one is NaN or infinite; the message names the tensor.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            raise InputError(
                f"{source}: tensor {name} has {count} of {tensor.numel()} values NaN or infinite; give finite weights"
            )


def _listed(names: list[str]) -> str:
    others = len(names) - 3
    return ", ".join(names[:3]) + (f" and {others} more" if others > 0 else "")
