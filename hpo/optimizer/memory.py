"""Peak memory of a configuration before it runs: out of memory is data, and most of it need not happen at all.

One regression per model of the zoo: the logarithm of the peak memory is linear in the logarithms of frames, batch and
crop, with a belief that activations grow with their product (frames x batch x size^2), a slight curvature in that
product (weights and the CUDA context do not grow with it), a small offset for each type of GPU, and coefficients near 0
for the other options of the model. With this belief a few trials are enough.

A trial that ran out of memory needed more than its device has, and that is what the regression is told (Tobin, 1958,
Estimation of relationships for limited dependent variables). How much more is then the mean of the part of the belief
that lies above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ..results.outcome import final_metrics, finite
from ..spec import Constraint, StudySpec
from ..trial import FailureKind, Params, TrialRecord, TrialState
from .shape_regression import Shape, ShapeRegression

MEMORY_METRIC: Final = "peak_memory_gib"
GIB: Final = 2.0**30
MARGIN: Final = 0.97
"""The share of a device's memory that a configuration may be predicted to need."""

_POWERS: Final[Mapping[str, float]] = {"clip.frames": 1.0, "batch_size": 1.0, "clip.size": 2.0}
"""Settings that activations grow with, and the powers in which they are believed to."""
_LEAST: Final = 4
"""Trials of a model that must have run, one of them to a measurement, before anything is predicted for it."""
_NEAR: Final = 0.25
"""Share of the limit below which memory is not worth a constraint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What trials run on."""

    kind: str
    """Such as the name of the GPU."""
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The workers: which devices trials have run on, and the largest that is there to run the next."""

    devices: Mapping[str, Device] = field(default_factory=dict)
    """By the name of the worker."""
    largest_bytes: int | None = None
    """Memory of the largest device of a live worker; None where it is not known."""


class MemoryModel:
    """What the trials of a study say about the memory that a configuration needs. A pure function of them."""

    def __init__(self, spec: StudySpec, records: Sequence[TrialRecord], fleet: Fleet) -> None:
        self._spec = spec
        self._fleet = fleet
        self.limit_gib = _limit(spec, fleet)
        """What a configuration may need; None where that is not known."""
        self.demand_gib: dict[int, float] = {}
        """What the trials that ran out of memory are estimated to have needed, by id."""
        self._shape = Shape(spec, _POWERS)
        self._fits: dict[str, ShapeRegression] = {}
        groups: dict[str, list[TrialRecord]] = {}
        for record in records:
            groups.setdefault(self._group(record.params), []).append(record)
        for group, members in groups.items():
            self._learn(group, members)

    def predict_gib(self, params: Params) -> float | None:
        """Return the expected peak memory on the most common type of device; None while too little is known."""
        fit = self._fits.get(self._group(params))
        return None if fit is None else math.exp(fit.predict(self._shape.features(params)))

    def fits(self, params: Params) -> bool:
        """Whether a configuration is expected to fit the largest device; what cannot be predicted may be tried."""
        predicted = self.predict_gib(params)
        return predicted is None or self.limit_gib is None or predicted <= self.limit_gib

    def _group(self, params: Params) -> str:
        return str(params.get("model", self._spec.task.base.get("model", "")))

    def _learn(self, group: str, members: Sequence[TrialRecord]) -> None:
        seen = [(record, peak) for record in members if (peak := peak_gib(record)) is not None and not _is_oom(record)]
        lost = [(record, limit) for record in members if _is_oom(record) and (limit := self._lost_at(record))]
        if seen and len(seen) + len(lost) >= _LEAST:
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

    def _lost_at(self, record: TrialRecord) -> float | None:
        """Return the memory that was not enough, in GiB."""
        device = self._fleet.devices.get(record.worker or "")
        if device is not None and device.memory_bytes is not None:
            return device.memory_bytes / GIB
        return self.limit_gib / MARGIN if self.limit_gib is not None else peak_gib(record)

    def _kind(self, record: TrialRecord) -> str:
        device = self._fleet.devices.get(record.worker or "")
        return "" if device is None else device.kind


def peak_gib(record: TrialRecord) -> float | None:
    """Return the peak memory that a trial was seen to need, from the worker or among its metrics."""
    if record.peak_memory_bytes is not None:
        return record.peak_memory_bytes / GIB
    found = finite(final_metrics(record), MEMORY_METRIC)
    return found if found is not None and found > 0 else None


def with_memory_limit(spec: StudySpec, model: MemoryModel, records: Sequence[TrialRecord]) -> StudySpec:
    """Return the spec with the memory limit as an outcome constraint, where something came near it.

    The limit and the memory of every outcome must be known.
    """
    finished = [r for r in records if r.state in (TrialState.COMPLETED, TrialState.STOPPED) and final_metrics(r)]
    is_given = any(constraint.metric == MEMORY_METRIC for constraint in spec.constraints)
    peaks = [peak_gib(record) for record in finished]
    known = [peak for peak in peaks if peak is not None]
    if is_given or model.limit_gib is None or not known or len(known) < len(peaks):
        return spec
    if not model.demand_gib and max(known) < _NEAR * model.limit_gib:
        return spec  # no reason to model it
    limit = Constraint(metric=MEMORY_METRIC, relation="<=", bound=model.limit_gib)
    return spec.model_copy(update={"constraints": [*spec.constraints, limit]})


def _limit(spec: StudySpec, fleet: Fleet) -> float | None:
    bounds = [c.bound for c in spec.constraints if c.metric == MEMORY_METRIC and c.relation == "<="]
    if fleet.largest_bytes is not None:
        bounds.append(MARGIN * fleet.largest_bytes / GIB)
    return min(bounds, default=None)


def _is_oom(record: TrialRecord) -> bool:
    return record.state is TrialState.FAILED and record.failure_kind is FailureKind.OOM
