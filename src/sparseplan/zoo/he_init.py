"""He initialisation, shared by the residual networks."""

from __future__ import annotations

from torch import nn


def he_init(network: nn.Module) -> None:
    """Draw every convolution of `network` from a normal distribution of variance 2 / fan-out.

    References
    ----------
    He et al., Delving deep into rectifiers, ICCV 2015, section 2.2 (backward case).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
