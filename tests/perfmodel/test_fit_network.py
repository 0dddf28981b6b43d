"""What networks add to their parts is found again from whole networks."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from synthetic_machine import SPARSE, Truth, profile_of, random_problems, samples_of

from sparseplan.perfmodel.fit import fit_performance_model
from sparseplan.perfmodel.fit_network import NetworkParts, fit_network_terms, network_time_s
from sparseplan.perfmodel.network import ASSUMED, NetworkTerms
from sparseplan.profiles.schema import MachineProfile, NetworkLayer, NetworkOperation, NetworkSample
from sparseplan.profiles.timing import TimeStats

TRUTH = NetworkTerms(call_s=20e-6, layer_s=6e-6, kind_s=15e-6, refetch_frac=0.7, handover_frac=0.3, between_scale=1.2)
NETWORKS = (
    NetworkParts(calls=2, kinds=1, layers_s=20e-6, weights_s=0.0, activations_s=0.0, between_s=5e-6),
    NetworkParts(calls=60, kinds=2, layers_s=600e-6, weights_s=0.0, activations_s=0.0, between_s=50e-6),
    NetworkParts(calls=60, kinds=60, layers_s=600e-6, weights_s=0.0, activations_s=0.0, between_s=50e-6),
    NetworkParts(calls=20, kinds=2, layers_s=2e-3, weights_s=4e-3, activations_s=0.0, between_s=0.0),
    NetworkParts(calls=20, kinds=2, layers_s=2e-3, weights_s=0.0, activations_s=3e-3, between_s=0.0),
    NetworkParts(calls=4, kinds=2, layers_s=2e-3, weights_s=0.0, activations_s=0.0, between_s=2e-3),
)


def test_a_network_takes_its_parts_its_calls_and_what_it_waits_for() -> None:
    around_s = 20e-6 + 20 * 6e-6 + 2 * 15e-6
    assert network_time_s(NETWORKS[3], TRUTH) == pytest.approx(around_s + 2e-3 + 0.7 * 4e-3)
    assert network_time_s(NETWORKS[4], TRUTH) == pytest.approx(around_s + 2e-3 + 0.3 * 3e-3)


def test_terms_are_found_again_where_networks_tell_of_them() -> None:
    found = fit_network_terms(NETWORKS, np.array([network_time_s(parts, TRUTH) for parts in NETWORKS]))
    assert astuple(found) == pytest.approx(astuple(TRUTH), rel=0.06)


def test_without_evidence_the_assumed_terms_stay() -> None:
    layers_alone = [NetworkParts(calls=1, kinds=1, layers_s=10.0, weights_s=0.0, activations_s=0.0, between_s=0.0)]
    found = fit_network_terms(layers_alone, np.array([10.0]))
    assert astuple(found) == pytest.approx(astuple(ASSUMED), rel=0.01)


def test_one_disturbed_network_does_not_decide() -> None:
    times_s = np.array([network_time_s(parts, TRUTH) for parts in 5 * NETWORKS])
    times_s[6] *= 3.0
    found = fit_network_terms(5 * NETWORKS, times_s)
    assert astuple(found) == pytest.approx(astuple(TRUTH), rel=0.1)


def _profile() -> MachineProfile:
    problems = random_problems(20, seed=0)
    return profile_of(samples_of(problems, Truth().times(problems, seed=0).tolist(), SPARSE.name))


def test_a_profile_with_networks_gives_a_model_with_their_terms() -> None:
    small = min((sample.problem for sample in _profile().samples), key=lambda problem: problem.flop_dense_equiv)
    plain = fit_performance_model(_profile(), (SPARSE,))
    assert plain.network == ASSUMED
    layer = NetworkLayer(problem=small, kernel=SPARSE.name, calls=50)
    layers_s = 50 * plain.predict(small, SPARSE.name).median_s
    slow_s = layers_s + 50 * max(0.5 * layers_s / 50, 10.0 * ASSUMED.layer_s)
    network = NetworkSample(
        model="many calls",
        input_shape=(1, 3, 8, 8),
        layers=(layer,),
        between=(NetworkOperation(operation="add", bytes_moved=1e3),),
        touched_bytes=0.0,
        time_s=TimeStats(median=slow_s, low=slow_s, high=slow_s, n=7),
    )
    with_network = _profile().model_copy(update={"networks": (network,)})
    assert fit_performance_model(with_network, (SPARSE,)).network.layer_s > 2.0 * ASSUMED.layer_s
    unknown = network.model_copy(update={"layers": (layer.model_copy(update={"kernel": "of_another_version"}),)})
    others = with_network.model_copy(update={"networks": (unknown,)})
    assert fit_performance_model(others, (SPARSE,)).network == ASSUMED


def test_operations_between_are_scaled_and_keep_their_interval() -> None:
    model = fit_performance_model(_profile(), (SPARSE,))
    alone, between = model.predict_elementwise("add", 1e6), model.predict_between("add", 1e6)
    assert between.median_s == pytest.approx(ASSUMED.between_scale * alone.median_s)
    assert between.high_s / between.median_s == pytest.approx(alone.high_s / alone.median_s)
