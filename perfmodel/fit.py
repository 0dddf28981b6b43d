"""From a machine profile to a performance model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..kernels.problem import Problem
from ..kernels.spec import KernelSpec
from ..profiles.schema import KernelSample, MachineProfile
from .anchors import AnchorSamples, anchors_of
from .difficulty import HeldOut, fit_difficulty
from .drift import drift_of
from .elementwise import fit_elementwise
from .features import layer_key, shape_features
from .fit_network import with_networks
from .fit_roofline import fit_roofline
from .interval import FEW_SAMPLES, UNKNOWN, LogInterval, conformal_interval
from .kernel_model import KernelModel, domain_of, hardness
from .limits import Floats, Limits, limits_of
from .network import ASSUMED, GPU_ASSUMED
from .predict import PerformanceModel
from .residual import fit_residual
from .roofline import PRIOR, Roofline, combine, roofline_times
from .terms import Terms, roofline_terms

FOLDS = 5
ENOUGH_FOR_RESIDUAL = 25
MOST_NOISE_FRAC = 0.25
FEWEST_QUIET = 5
"""Residuals of measurements whose median is less certain than this judge no model, unless hardly any others exist."""
LEAST_GAIN_FRAC = 0.03
"""A residual must lower the held-out error by this share: a smaller gain may be chance."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Data:
    """Samples of one kernel as arrays over samples."""

    problems: tuple[Problem, ...]
    terms: Terms
    features: Floats
    measured_s: Floats
    noise_frac: Floats
    folds: np.ndarray

    def rows(self, chosen: np.ndarray) -> _Data:
        return _Data(
            problems=tuple(problem for problem, taken in zip(self.problems, chosen, strict=True) if taken),
            terms=self.terms.rows(chosen),
            features=self.features[chosen],
            measured_s=self.measured_s[chosen],
            noise_frac=self.noise_frac[chosen],
            folds=self.folds[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fitted:
    """A kernel's model before its interval is known."""

    model: KernelModel
    held_out: HeldOut


def fit_performance_model(profile: MachineProfile, registry: Sequence[KernelSpec]) -> PerformanceModel:
    """Fit every kernel of a registry to a profile.

    Samples are first corrected for how fast the machine was when they were taken. Per kernel: efficiencies of the
    roofline terms by robust least squares; a Gaussian process over shapes for the rest, kept only if it lowers the
    error on held-out layers; an interval from the residuals on held-out layers, each in units of how hard its
    prediction is. On layers that were measured themselves the measurements are interpolated, with an interval from
    samples left out. A kernel with few samples borrows the residuals of its family, one without samples gets the
    analytic bound with a wide interval.

    Raises
    ------
    InputError
        If the profile lacks a ceiling.
    """
    limits = limits_of(profile)
    rows: dict[str, list[int]] = defaultdict(list)
    for row, sample in enumerate(profile.samples):
        rows[sample.kernel].append(row)
    known = {spec.name: spec for spec in registry if spec.name in rows}
    data = {name: _data_of(spec, [profile.samples[row] for row in rows[name]], limits) for name, spec in known.items()}
    residuals = np.full(len(profile.samples), np.nan)
    for name, found in data.items():
        residuals[rows[name]] = _left_over(found)
    drift = drift_of(profile.samples, residuals)
    fitted = {name: _fit_kernel(spec, data[name], drift[rows[name]]) for name, spec in known.items()}
    difficulty, factors = fit_difficulty([each.held_out for each in fitted.values()])
    normalised = {
        name: each.held_out.residuals / factor for (name, each), factor in zip(fitted.items(), factors, strict=True)
    }
    kernels = {
        spec.name: replace(fitted[spec.name].model, interval=_interval(spec, fitted, normalised), difficulty=difficulty)
        if spec.name in fitted
        else _unseen(spec)
        for spec in registry
    }
    model = PerformanceModel(
        limits=limits,
        threads=profile.threads,
        kernels=kernels,
        elementwise=fit_elementwise(profile.elementwise, limits, profile.threads),
        network=GPU_ASSUMED if profile.device == "cuda" else ASSUMED,
    )
    return with_networks(model, profile.networks)


def _data_of(spec: KernelSpec, samples: Sequence[KernelSample], limits: Limits) -> _Data:
    problems = tuple(sample.problem for sample in samples)
    return _Data(
        problems=problems,
        terms=roofline_terms(problems, spec, limits),
        features=shape_features(problems),
        measured_s=np.array([sample.time_s.median for sample in samples]),
        noise_frac=np.array([sample.time_s.spread_frac for sample in samples]),
        folds=_folds(problems),
    )


def _left_over(data: _Data) -> Floats:
    """log(measured / predicted) of each sample, predicted by a fit to all of them."""
    residual = _log_residual(data, fit_roofline(data.terms, data.measured_s, data.noise_frac))
    if len(residual) < ENOUGH_FOR_RESIDUAL:
        return residual
    return residual - fit_residual(data.features, residual, data.noise_frac).predict(data.features)


def _fit_kernel(spec: KernelSpec, measured: _Data, drift: Floats) -> _Fitted:
    data = replace(measured, measured_s=measured.measured_s * np.exp(-drift))
    roofline = fit_roofline(data.terms, data.measured_s, data.noise_frac)
    plain, corrected = _held_out(data, roofline)
    quiet = _quiet(data)
    held_out, residual = plain[quiet], None
    if len(held_out) >= ENOUGH_FOR_RESIDUAL and _error(corrected[quiet]) < (1.0 - LEAST_GAIN_FRAC) * _error(held_out):
        held_out = corrected[quiet]
        residual = fit_residual(data.features, _log_residual(data, roofline), data.noise_frac)
    model = KernelModel(
        spec=spec,
        roofline=roofline,
        residual=residual,
        interval=UNKNOWN,
        domain=domain_of(spec, data.problems, data.terms),
        samples=len(data.problems),
        held_out_error=float(np.median(np.abs(held_out))) if len(held_out) else float("nan"),
    )
    features = hardness(data.problems, data.terms, roofline)[quiet]
    log_base, _ = model.base_log_time(data.problems, data.terms)
    anchors = anchors_of(
        AnchorSamples(
            problems=data.problems,
            log_work=np.log(data.terms.work_frac),
            # As measured: layers of one network come in a row, and what the model misses of them is not drift.
            log_time=np.log(measured.measured_s),
            log_base=log_base,
            noise_frac=data.noise_frac,
        )
    )
    return _Fitted(model=replace(model, anchors=anchors), held_out=HeldOut(residuals=held_out, features=features))


def _folds(problems: Sequence[Problem]) -> np.ndarray:
    """[problems]: a fold for each layer, dealt out in the order of first appearance."""
    layers: dict[tuple[object, ...], int] = {}
    return np.array([layers.setdefault(layer_key(problem), len(layers)) % FOLDS for problem in problems])


def _held_out(data: _Data, start: Roofline) -> tuple[Floats, Floats]:
    """log(measured / predicted) of each sample, predicted without the layers of its fold.

    Returns
    -------
    plain, corrected : array
        [samples] without and with the residual's correction; NaN where all samples are of one layer.
    """
    plain = np.full(len(data.problems), np.nan)
    corrected = plain.copy()
    for fold in range(FOLDS):
        held = data.folds == fold
        if not held.any() or held.all():
            continue
        train, test = data.rows(~held), data.rows(held)
        roofline = fit_roofline(train.terms, train.measured_s, train.noise_frac, start=start)
        residual = fit_residual(train.features, _log_residual(train, roofline), train.noise_frac)
        plain[held] = _log_residual(test, roofline)
        corrected[held] = plain[held] - residual.predict(test.features)
    return plain, corrected


def _quiet(data: _Data) -> np.ndarray:
    """[samples]: which held-out residuals tell of the model and not of a disturbed measurement."""
    if len(set(data.folds.tolist())) < 2:
        return np.zeros(len(data.folds), dtype=bool)
    quiet = data.noise_frac <= MOST_NOISE_FRAC
    return quiet if quiet.sum() >= FEWEST_QUIET else np.ones_like(quiet)


def _error(log_residuals: Floats) -> float:
    """Mean absolute, each drawn in to a factor of two: a few misfits must not decide."""
    return float(np.minimum(np.abs(log_residuals), np.log(2.0)).mean())


def _log_residual(data: _Data, roofline: Roofline) -> Floats:
    return np.log(data.measured_s) - np.log(combine(roofline_times(data.terms, roofline), roofline))


def _interval(spec: KernelSpec, fitted: Mapping[str, _Fitted], normalised: Mapping[str, Floats]) -> LogInterval:
    """Interval from the kernel's own held-out residuals, its family's where these are few, else everyone's."""
    held_out = normalised[spec.name]
    if len(held_out) < FEW_SAMPLES:
        specs = [each.model.spec for each in fitted.values() if each.model.spec is not spec]
        for relatives in (
            [other for other in specs if _family(other) == _family(spec)],
            [other for other in specs if other.op == spec.op],
            specs,
        ):
            held_out = np.concatenate([normalised[spec.name], *(normalised[other.name] for other in relatives)])
            if len(held_out) >= FEW_SAMPLES:
                break
    return conformal_interval(held_out)


def _family(spec: KernelSpec) -> tuple[str, tuple[str, ...], str]:
    return spec.op, spec.patterns, spec.isa


def _unseen(spec: KernelSpec) -> KernelModel:
    return KernelModel(
        spec=spec,
        roofline=PRIOR,
        residual=None,
        interval=UNKNOWN,
        domain=None,
        samples=0,
        held_out_error=float("nan"),
    )
