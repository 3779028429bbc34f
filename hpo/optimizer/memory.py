"""The peak memory of a configuration, predicted before it runs, so that few trials run out of memory.

One regression per model of the zoo: the logarithm of the peak memory is linear in the logarithms of frames, batch and
crop. The priors say that activations grow with their product (frames x batch x size^2), with a slight curvature in that
product (weights and the CUDA context do not grow with it), a small offset for each type of GPU, and coefficients near 0
for the other options of the model. With these priors a few trials are enough.

A trial that ran out of memory needed more than its device has: it enters the regression as a censored observation
(Tobin, 1958, "Estimation of Relationships for Limited Dependent Variables"). Its demand is estimated by the mean of the
part of the predictive distribution above the device's memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ..results.outcome import MEMORY_METRIC, final_metrics, finite
from ..spec import Constraint, StudySpec
from ..trial import RESULT_STATES, FailureKind, Params, TrialRecord, TrialState
from .shape_regression import Shape, ShapeRegression

GIB: Final = 2.0**30
USABLE_MEMORY_SHARE: Final = 0.97
"""The share of a device's memory that a configuration may be predicted to need."""

_MIN_TRIALS_OF_MODEL: Final = 4
"""Trials of a model, at least one of them measured, from which on its memory is predicted."""
_CONSTRAIN_FROM_SHARE: Final = 0.25
"""Memory becomes a constraint once a trial needed this share of the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that trials run on."""

    kind: str
    """Its type, such as the name of the GPU."""
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The workers: the devices that trials have run on, and the largest one available for the next."""

    devices: Mapping[str, Device] = field(default_factory=dict)
    """By the name of the worker."""
    largest_bytes: int | None = None
    """Memory of the largest device of a live worker; None where it is not known."""


class MemoryModel:
    """Predicts the memory that a configuration needs, as a pure function of the trials of a study."""

    def __init__(self, spec: StudySpec, records: Sequence[TrialRecord], fleet: Fleet) -> None:
        self._spec = spec
        self._fleet = fleet
        self.limit_gib = _limit(spec, fleet)
        """The memory that a configuration may need; None if it is not known."""
        self.demand_gib: dict[int, float] = {}
        """The estimated memory that trials that ran out of it would have needed, by id."""
        self._shape = Shape(spec, spec.task.memory_powers)
        self._fits: dict[str, ShapeRegression] = {}
        groups: dict[str, list[TrialRecord]] = {}
        for record in records:
            groups.setdefault(self._group(record.params), []).append(record)
        for group, members in groups.items():
            self._learn(group, members)

    def predict_gib(self, params: Params) -> float | None:
        """Return the expected peak memory on the most common type of device; None with too few trials."""
        fit = self._fits.get(self._group(params))
        return None if fit is None else math.exp(fit.predict(self._shape.features(params)))

    def fits(self, params: Params) -> bool:
        """Return whether a configuration is expected to fit the largest device; True where nothing can be predicted."""
        predicted = self.predict_gib(params)
        return predicted is None or self.limit_gib is None or predicted <= self.limit_gib

    def _group(self, params: Params) -> str:
        model = self._spec.task.architecture
        return "" if model is None else str(params.get(model, self._spec.task.base.get(model, "")))

    def _learn(self, group: str, members: Sequence[TrialRecord]) -> None:
        seen = [(record, peak) for record in members if (peak := peak_gib(record)) is not None and not _is_oom(record)]
        lost = [(record, limit) for record in members if _is_oom(record) and (limit := self._memory_exceeded(record))]
        if seen and len(seen) + len(lost) >= _MIN_TRIALS_OF_MODEL:
            records = [record for record, _ in (*seen, *lost)]
            fit = ShapeRegression(
                np.array([self._shape.features(record.params) for record in records]),
                np.log([value for _, value in (*seen, *lost)]),
                np.array([0] * len(seen) + [1] * len(lost), dtype=bool),
                [self._kind(record) for record in records],
                self._shape.beliefs,
            )
            self._fits[group] = fit
            self.demand_gib |= {
                r.id: math.exp(y) for r, y in zip(records[len(seen) :], fit.targets[len(seen) :], strict=True)
            }
        else:
            self.demand_gib |= {record.id: 1.1 * limit for record, limit in lost}

    def _memory_exceeded(self, record: TrialRecord) -> float | None:
        """Return the memory in GiB that was not enough for the trial."""
        device = self._fleet.devices.get(record.worker or "")
        if device is not None and device.memory_bytes is not None:
            return device.memory_bytes / GIB
        return self.limit_gib / USABLE_MEMORY_SHARE if self.limit_gib is not None else peak_gib(record)

    def _kind(self, record: TrialRecord) -> str:
        device = self._fleet.devices.get(record.worker or "")
        return "" if device is None else device.kind


def peak_gib(record: TrialRecord) -> float | None:
    """Return the measured peak memory of a trial, from the worker or from its metrics."""
    if record.peak_memory_bytes is not None:
        return record.peak_memory_bytes / GIB
    found = finite(final_metrics(record), MEMORY_METRIC)
    return found if found is not None and found > 0 else None


def device_bytes_for(demand_gib: float) -> int:
    """Return the memory of the smallest device that a configuration with this demand may run on."""
    return round(demand_gib / USABLE_MEMORY_SHARE * GIB)


def with_memory_limit(spec: StudySpec, model: MemoryModel, records: Sequence[TrialRecord]) -> StudySpec:
    """Return the spec with the memory limit as an outcome constraint, if a trial came near the limit.

    The spec is returned unchanged if the limit, or the memory of any finished trial, is not known.
    """
    finished = [r for r in records if r.state in RESULT_STATES and final_metrics(r)]
    is_given = any(constraint.metric == MEMORY_METRIC for constraint in spec.constraints)
    peaks = [peak_gib(record) for record in finished]
    known = [peak for peak in peaks if peak is not None]
    if is_given or model.limit_gib is None or not known or len(known) < len(peaks):
        return spec
    if not model.demand_gib and max(known) < _CONSTRAIN_FROM_SHARE * model.limit_gib:
        return spec  # far from the limit, memory need not be modelled
    limit = Constraint(metric=MEMORY_METRIC, relation="<=", bound=model.limit_gib)
    return spec.model_copy(update={"constraints": [*spec.constraints, limit]})


def _limit(spec: StudySpec, fleet: Fleet) -> float | None:
    bounds = [c.bound for c in spec.constraints if c.metric == MEMORY_METRIC and c.relation == "<="]
    if fleet.largest_bytes is not None:
        bounds.append(USABLE_MEMORY_SHARE * fleet.largest_bytes / GIB)
    return min(bounds, default=None)


def _is_oom(record: TrialRecord) -> bool:
    return record.state is TrialState.FAILED and record.failure_kind is FailureKind.OOM
