"""The predicted time of a network as it is, without any sparsity."""

from __future__ import annotations

from torch import Tensor, nn

from ..perfmodel.schema import Interval
from .candidates import join_loss
from .capture import capture
from .make_plan import for_threads
from .network_time import Network, total_time
from .options import Machinery, NetworkForm
from .rest import rest_time
from .sensitivity import Sensitivity
from .time_options import time_options

_NOTHING_PRUNED = Sensitivity(source="magnitude", loss={}, rounding={}, measured={})


def predict_dense(
    model: nn.Module, example: Tensor, *, threads: int, machinery: Machinery
) -> tuple[Interval, NetworkForm]:
    """Sum over the layers, each under its best dense float32 kernel, and over what lies between them.

    Parameters
    ----------
    example : Tensor
        [N, C, H, W], float32.

    Returns
    -------
    Interval
        Of one forward pass.
    NetworkForm
        Memory order and dtype between the layers that is predicted fastest.
    """
    captured = for_threads(capture(model, example), threads)
    timed = time_options(captured.layers, (), dtype_policy="float32", machinery=machinery)
    network = Network(
        layers=join_loss(timed.layers, _NOTHING_PRUNED),
        widths=timed.widths,
        width_loss=(),
        rest=rest_time(captured, timed.form.dtype, machinery),
    )
    return total_time(network, network.dense), timed.form
