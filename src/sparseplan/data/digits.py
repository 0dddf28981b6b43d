"""scikit-learn's digits: 1,797 images of 8x8, at hand without a download."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from ..trainer.data import DataSplits
from .assemble import Images, assemble
from .holdout import stratified_holdout

TEST_FRAC = 0.2
_BRIGHTEST = 16


def load() -> DataSplits:
    """The digits as uint8 [N, 1, 8, 8]: a fifth of each class is the test data, a tenth of the rest validates.

    The set has no division of its own; this one is the same at every call.
    """
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / _BRIGHTEST)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    rest, test = stratified_holdout(labels, TEST_FRAC)
    return assemble(
        "digits",
        Images(images=images[rest], labels=labels[rest]),
        test=Images(images=images[test], labels=labels[test]),
        classes=tuple(str(digit) for digit in bunch.target_names),
        augment="shift",
    )
