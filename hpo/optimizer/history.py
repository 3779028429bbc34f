"""The history of a study as a generator reads it: a pure view of the trial records.

How a trial counts for a model:

    completed                       its final values, at its last step
    stopped, running with a curve   its last values, at the step they belong to
    failed(oom)                     its estimated memory, where memory is constrained
    failed(any other kind)          nothing: whether configurations run is a matter of its own (`runnability`)
    withdrawn                       nothing

A sampler of Optuna cannot be given that probability, so it reads the worst values seen for a failure that the
configuration is likely to be at fault for. The exact configuration of a failed trial is not proposed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from ..arrays import Array
from ..results.outcome import MEMORY_METRIC, final_metrics, finite
from ..spec import StudySpec
from ..trial import EarlierTrial, FailureKind, Metrics, Params, Suggestion, TrialRecord, TrialState
from .cube import ParamsKey, key_of
from .memory import peak_gib

CONFIGURATION_FAULTS = frozenset({FailureKind.OOM, FailureKind.DIVERGED, FailureKind.TIMEOUT})
"""Failures that the configuration caused; with others the machine or chance may be at fault."""

PENDING = frozenset({TrialState.SUGGESTED, TrialState.RUNNING, TrialState.PAUSED})
"""States of trials that have not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One trial as a model sees it. `metrics` holds all objective and constraint metrics, all finite, or is empty."""

    params: Params
    state: TrialState
    step: int
    """Epochs done when the metrics were measured."""
    metrics: Mapping[str, float]
    curve: Mapping[int, Metrics] = field(default_factory=dict)
    """The metrics reported so far, by epochs done."""
    imputed: bool = False
    """Whether the metrics stand for a failure."""
    is_evidence: bool = False
    """Whether `History.runnability` knows the failure; generators that use it leave such metrics out."""
    vague: Mapping[str, float] = field(default_factory=dict)
    """Standard deviations of the metrics that are placeholders because nothing is known about them."""


class Runnability(Protocol):
    """Which configurations are likely to run, learned from the trials that failed and those that ran."""

    def of(self, params: Params) -> float:
        """Return the probability that a configuration runs."""
        ...

    def clearly_fails(self, params: Params) -> bool:
        """Return whether a configuration is much less likely to run than those that did."""
        ...

    def weights(self, rows: Array) -> tuple[Array, Array]:
        """Return the logarithms of weights of rows in an acquisition, and their gradient in the coordinates."""
        ...


class History:
    """The records of a study, in the order of their ids, and quantities derived from them."""

    def __init__(
        self,
        spec: StudySpec,
        records: Iterable[TrialRecord],
        demand_gib: Mapping[int, float] | None = None,
        earlier: Sequence[EarlierTrial] = (),
        *,
        runnability: Runnability | None = None,
    ) -> None:
        """View `records`; `demand_gib` is the memory that trials that ran out of it would have needed, by id.

        `earlier` are trials of other studies to learn from. `runnability` is what the records show about which
        configurations run; None without failures.
        """
        self.spec = spec
        self.runnability = runnability
        self.earlier = tuple(earlier)
        self._demand_gib = dict(demand_gib or {})
        kept = (record for record in records if record.state is not TrialState.WITHDRAWN)
        self.records: Sequence[TrialRecord] = sorted(kept, key=lambda record: record.id)

    @cached_property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics of the objectives, then those of the constraints, each once."""
        names = [objective.metric for objective in self.spec.objectives]
        return tuple(dict.fromkeys(names + [constraint.metric for constraint in self.spec.constraints]))

    @cached_property
    def taken(self) -> frozenset[ParamsKey]:
        """The configurations that were tried, are being tried, or failed."""
        return frozenset(key_of(record.params) for record in self.records)

    @cached_property
    def failed(self) -> frozenset[ParamsKey]:
        """The configurations that failed."""
        return frozenset(key_of(record.params) for record in self.records if record.state is TrialState.FAILED)

    @cached_property
    def planned(self) -> int:
        """The number of trials that count towards the start-up: all except failed ones and replicates."""
        return sum(record.state is not TrialState.FAILED and record.replicate_of is None for record in self.records)

    @cached_property
    def measured(self) -> int:
        """The number of finished trials with a usable outcome."""
        return sum(bool(seen.metrics) and seen.state not in PENDING and not seen.imputed for seen in self.observations)

    @cached_property
    def observations(self) -> Sequence[Observation]:
        """The data of a model: pending trials (maybe without metrics) and those with a usable outcome."""
        worst = self._worst()
        found = (self._observe(record, worst) for record in self.records)
        return [seen for seen in found if seen is not None]

    def extended(self, suggestions: Sequence[Suggestion]) -> History:
        """Return the history in which `suggestions` are pending trials."""
        after = max((record.id for record in self.records), default=-1) + 1
        pending = [
            TrialRecord(id=after + place, number=after + place, state=TrialState.SUGGESTED, params=suggestion.params)
            for place, suggestion in enumerate(suggestions)
        ]
        return self._with(pending, {})

    def without(self, rejected: Mapping[ParamsKey, float | None]) -> History:
        """Return the history in which the `rejected` configurations failed.

        Those with a demand in GiB ran out of memory. The others diverged, and they are no evidence of which ones run.
        """
        after = max((record.id for record in self.records), default=-1) + 1
        records = [
            TrialRecord(
                id=after + place,
                number=after + place,
                state=TrialState.FAILED,
                failure_kind=FailureKind.DIVERGED if demand is None else FailureKind.OOM,
                params=dict(key),
            )
            for place, (key, demand) in enumerate(rejected.items())
        ]
        demands = zip(records, rejected.values(), strict=True)
        return self._with(records, {record.id: demand for record, demand in demands if demand is not None})

    def _with(self, added: Sequence[TrialRecord], demand_gib: Mapping[int, float]) -> History:
        records, demands = [*self.records, *added], {**self._demand_gib, **demand_gib}
        return History(self.spec, records, demands, self.earlier, runnability=self.runnability)

    def _observe(self, record: TrialRecord, worst: Mapping[str, float]) -> Observation | None:
        if record.state is TrialState.FAILED:
            full = self.spec.task.epochs
            if worst and record.id in self._demand_gib and MEMORY_METRIC in self.metric_names:
                return self._out_of_memory(record, full)
            if not worst or not self._is_at_fault(record):
                return None
            return Observation(
                params=record.params,
                state=TrialState.COMPLETED,
                step=full,
                metrics=worst,
                imputed=True,
                is_evidence=self.runnability is not None and record.id not in self._demand_gib,
            )
        metrics = self.usable(record)
        if not metrics and record.state not in PENDING:
            return None
        step = record.last_step or (0 if record.state in PENDING else self.spec.task.epochs)
        # A paused trial may never continue, so it counts with the metrics it has reported.
        state = TrialState.STOPPED if record.state is TrialState.PAUSED and metrics else record.state
        return Observation(params=record.params, state=state, step=step, metrics=metrics, curve=record.curve)

    def _is_at_fault(self, failed: TrialRecord) -> bool:
        if failed.failure_kind in CONFIGURATION_FAULTS:
            return True
        return self.runnability is not None and self.runnability.clearly_fails(failed.params)

    def _out_of_memory(self, record: TrialRecord, step: int) -> Observation:
        middle = {name: float(np.median(values)) for name, values in self._seen.items()}
        # The placeholder is so uncertain that a model learns nothing from it.
        vague = {name: 3 * float(np.std(values)) + 1e-6 for name, values in self._seen.items() if name != MEMORY_METRIC}
        metrics = {**middle, MEMORY_METRIC: self._demand_gib[record.id]}
        return Observation(
            params=record.params, state=TrialState.COMPLETED, step=step, metrics=metrics, imputed=True, vague=vague
        )

    @cached_property
    def _seen(self) -> dict[str, list[float]]:
        """The values of every metric over the completed trials."""
        usable = [self.usable(record) for record in self.records if record.state is TrialState.COMPLETED]
        return {name: [metrics[name] for metrics in usable if metrics] for name in self.metric_names}

    def usable(self, record: TrialRecord) -> dict[str, float]:
        """Return the metrics of a trial that a model uses: all that are modelled, or none."""
        metrics = final_metrics(record)
        peak = peak_gib(record)
        if metrics and peak is not None:
            metrics = {MEMORY_METRIC: peak, **metrics}
        values = {name: finite(metrics, name) for name in self.metric_names}
        known = {name: value for name, value in values.items() if value is not None}
        return known if len(known) == len(values) else {}

    def _worst(self) -> dict[str, float]:
        """Return the worst value of every metric over the completed trials; empty before the first."""
        seen = [self.usable(record) for record in self.records if record.state is TrialState.COMPLETED]
        seen = [metrics for metrics in seen if metrics]
        if not seen:
            return {}
        found: dict[str, float] = {}
        for constraint in self.spec.constraints:
            choose = max if constraint.relation == "<=" else min
            found[constraint.metric] = choose(metrics[constraint.metric] for metrics in seen)
        for objective in self.spec.objectives:
            choose = min if objective.direction == "maximize" else max
            found[objective.metric] = choose(metrics[objective.metric] for metrics in seen)
        return found
