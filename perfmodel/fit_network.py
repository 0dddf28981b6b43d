"""Fit what networks add to their layers to whole networks that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
from scipy import optimize

from ..profiles.schema import NetworkSample
from .limits import Floats
from .network import ASSUMED, NetworkTerms
from .predict import PerformanceModel
from .waits import handover_s, refetch_s

MODEL_ERROR = 0.05
"""Typical misfit of a network, in natural logarithms of time."""
PRIOR_WIDTH = np.log([2.0, 2.0, 1.5, 1.5, 1.5, 1.2])
"""Factors by which the terms may leave what is assumed as easily as a network its prediction: a few networks fix them
only roughly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkParts:
    """What a network is predicted to consist of, seconds; `calls` of layers of several `kinds`, waits for weights and
    for activations."""

    calls: int
    kinds: int
    layers_s: float
    weights_s: float
    activations_s: float
    between_s: float


def with_networks(model: PerformanceModel, samples: Sequence[NetworkSample]) -> PerformanceModel:
    """The model with the terms of networks fitted; as it is where none was measured."""
    known = [sample for sample in samples if all(layer.kernel in model.kernels for layer in sample.layers)]
    if not known:
        return model
    parts = [network_parts(sample, model) for sample in known]
    measured_s = np.array([sample.time_s.median for sample in known])
    return replace(model, network=fit_network_terms(parts, measured_s, prior=model.network))


def network_parts(sample: NetworkSample, model: PerformanceModel) -> NetworkParts:
    """What a model predicts for the parts of a network, whatever its own terms of networks are."""
    layers = [(layer.calls, [layer.problem], model.kernels[layer.kernel]) for layer in sample.layers]
    alone = model.predict_pairs([(layer.problem, layer.kernel) for layer in sample.layers])
    return NetworkParts(
        calls=sum(layer.calls for layer in sample.layers),
        kinds=len({layer.problem for layer in sample.layers}),
        layers_s=sum(layer.calls * each.median_s for layer, each in zip(sample.layers, alone, strict=True)),
        weights_s=sum(
            calls * float(refetch_s(problem, kernel, model.limits, sample.touched_bytes)[0])
            for calls, problem, kernel in layers
        ),
        activations_s=sum(
            calls * float(handover_s(problem, kernel, model.limits)[0]) for calls, problem, kernel in layers
        ),
        between_s=sum(model.predict_elementwise(each.operation, each.bytes_moved).median_s for each in sample.between),
    )


def network_time_s(parts: NetworkParts, terms: NetworkTerms) -> float:
    """Seconds of one pass."""
    around_s = terms.call_s + terms.layer_s * parts.calls + terms.kind_s * parts.kinds
    waits_s = terms.refetch_frac * parts.weights_s + terms.handover_frac * parts.activations_s
    return around_s + parts.layers_s + waits_s + terms.between_scale * parts.between_s


def fit_network_terms(
    parts: Sequence[NetworkParts], measured_s: Floats, *, prior: NetworkTerms = ASSUMED
) -> NetworkTerms:
    """Robust least squares on the logarithm of time, held near `prior`.

    Parameters
    ----------
    measured_s : array
        [networks], medians.
    """
    log_prior = np.log(astuple(prior))

    def residuals(vector: Floats) -> Floats:
        predicted_s = [network_time_s(each, _from_vector(vector)) for each in parts]
        return np.concatenate([np.log(predicted_s / measured_s) / MODEL_ERROR, (vector - log_prior) / PRIOR_WIDTH])

    return _from_vector(optimize.least_squares(residuals, log_prior, loss="soft_l1").x)


def _from_vector(vector: Floats) -> NetworkTerms:
    return NetworkTerms(
        **{field.name: value for field, value in zip(fields(NetworkTerms), np.exp(vector).tolist(), strict=True)}
    )
