"""The physical part of the model: roofline terms, softened and scaled by efficiencies."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .limits import Floats
from .terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Efficiencies of one kernel.

    ``time = overhead_scale * overhead + copies + (sum_i (term_i / efficiency_i) ** sharpness) ** (1 / sharpness)``:
    copies come before and after the inner loops, in which arithmetic, streaming and memory overlap. The arithmetic term
    grows by ``work_frac ** -thinning``, as the inner loops of sparser weights are shorter, and by what starting these
    loops takes.

    Attributes
    ----------
    arithmetic, streaming, memory, copying : float
        Share of the ceiling that the kernel reaches; above 1 where its counts are conservative.
    dealing_scale, starts_scale : float
        Multiples of the assumed cost of moving a value by itself and of starting a loop.
    overhead_scale : float
        Multiple of the cost of calling torch and starting the threads.
    thinning : float
        In [0, 0.9]: below 1, so that less work never takes longer.
    sharpness : float
        1 where the resources are used one after the other, large where they overlap perfectly.
    """

    arithmetic: float
    streaming: float
    memory: float
    copying: float
    dealing_scale: float
    starts_scale: float
    overhead_scale: float
    thinning: float
    sharpness: float


PRIOR = Roofline(
    arithmetic=0.5,
    streaming=0.7,
    memory=0.6,
    copying=0.5,
    dealing_scale=1.0,
    starts_scale=1.0,
    overhead_scale=8.0,
    thinning=0.1,
    sharpness=3.0,
)
"""Where no sample says otherwise (assumed): a well-written kernel, half-way between the ceilings and untuned code."""
LEAST = Roofline(
    arithmetic=0.002,
    streaming=0.02,
    memory=0.02,
    copying=0.01,
    dealing_scale=0.01,
    starts_scale=0.01,
    overhead_scale=0.2,
    thinning=0.0,
    sharpness=1.0,
)
MOST = Roofline(
    arithmetic=2.0,
    streaming=8.0,
    memory=4.0,
    copying=4.0,
    dealing_scale=30.0,
    starts_scale=30.0,
    overhead_scale=150.0,
    thinning=0.9,
    sharpness=8.0,
)


def roofline_times(terms: Terms, roofline: Roofline) -> Floats:
    """Predicted time by resource.

    Returns
    -------
    array
        [5, problems], seconds, in the order of `RESOURCES`; `combine` makes the total of it.
    """
    return np.stack(
        [
            terms.arithmetic_s * terms.work_frac**-roofline.thinning / roofline.arithmetic
            + terms.starts_s * roofline.starts_scale,
            terms.streaming_s / roofline.streaming,
            terms.memory_s / roofline.memory,
            terms.overhead_s * roofline.overhead_scale,
            terms.copying_s / roofline.copying + terms.dealing_s * roofline.dealing_scale,
        ]
    )


def combine(times_s: Floats, roofline: Roofline) -> Floats:
    """Total of [5, problems] times: overhead and copies plus the smooth maximum of the first three."""
    busy = times_s[:3]
    largest = np.maximum(busy.max(axis=0), 1e-30)
    smooth = ((busy / largest) ** roofline.sharpness).sum(axis=0) ** (1.0 / roofline.sharpness)
    return times_s[3] + times_s[4] + largest * smooth


def gradient(terms: Terms, roofline: Roofline) -> Floats:
    """Derivative of the logarithm of the total by each parameter as `to_vector` gives it.

    Returns
    -------
    array
        [problems, parameters], in the order of the fields of `Roofline`.
    """
    times_s = roofline_times(terms, roofline)
    total_s = combine(times_s, roofline)
    busy = np.maximum(times_s[:3], 1e-30)
    largest = busy.max(axis=0)
    relative = busy / largest
    powers = relative**roofline.sharpness
    power_sum = powers.sum(axis=0)
    smooth_s = largest * power_sum ** (1.0 / roofline.sharpness)
    shares = powers / power_sum * smooth_s / busy / total_s
    starts_s = terms.starts_s * roofline.starts_scale
    dealing_s = terms.dealing_s * roofline.dealing_scale
    entropy = (powers * np.log(relative)).sum(axis=0) / power_sum - np.log(power_sum) / roofline.sharpness
    by_parameter = {
        "arithmetic": -shares[0] * (times_s[0] - starts_s),
        "streaming": -shares[1] * times_s[1],
        "memory": -shares[2] * times_s[2],
        "copying": -(times_s[4] - dealing_s) / total_s,
        "dealing_scale": dealing_s / total_s,
        "starts_scale": shares[0] * starts_s,
        "overhead_scale": times_s[3] / total_s,
        "thinning": -shares[0] * (times_s[0] - starts_s) * np.log(terms.work_frac),
        "sharpness": smooth_s / total_s * entropy,
    }
    return np.column_stack([by_parameter[field.name] for field in fields(Roofline)])


def to_vector(roofline: Roofline) -> Floats:
    """Parameters as least squares sees them: logarithms, but the thinning as it is."""
    return np.array(
        [
            value if field.name == "thinning" else np.log(value)
            for field in fields(Roofline)
            for value in [getattr(roofline, field.name)]
        ]
    )


def from_vector(vector: Floats) -> Roofline:
    """Inverse of `to_vector`."""
    return Roofline(
        **{
            field.name: float(value if field.name == "thinning" else np.exp(value))
            for field, value in zip(fields(Roofline), vector, strict=True)
        }
    )
