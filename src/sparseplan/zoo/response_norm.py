"""Local response normalisation, shared by the networks of Caffe's time."""

from __future__ import annotations

from torch import nn


def response_norm() -> nn.LocalResponseNorm:
    """Normalise across five neighbouring channels with the constants of Caffe's AlexNet and GoogLeNet.

    References
    ----------
    Krizhevsky et al., NIPS 2012, section 3.3 (they have k = 2 and sum; Caffe has k = 1 and takes the mean).
    """
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
