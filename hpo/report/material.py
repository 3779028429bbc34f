"""What a report is made of, read from the API: the spec, the trials with their curves, and the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from ..client.http import Client
from ..errors import NotFoundError
from ..protocol import Confusion
from ..results.evidence import Evidence
from ..results.outcome import MEMORY_METRIC, final_metrics, finite
from ..spec import StudySpec, stored_spec
from ..trial import RESULT_STATES, FailureKind, Params, TrialRecord, TrialState

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=False, kw_only=True)
class Material:
    """A study as the API tells it."""

    study: Json
    spec: StudySpec
    records: list[TrialRecord]
    """The trials by number, with the curves of the metrics that the models use."""
    answer: Json | None
    """What is believed of the configurations; None before any has a result."""
    confusion: Confusion | None = None
    """How the best trial classified its validation videos; None where it is not known."""

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.spec.name

    @property
    def objectives(self) -> list[str]:
        """The metrics of the objectives."""
        return [objective.metric for objective in self.spec.objectives]

    @property
    def metric(self) -> str:
        """The metric of the first objective."""
        return self.objectives[0]

    @property
    def evidence(self) -> Evidence | None:
        """The evidence for the best configuration."""
        best = self.study["best"]
        return None if best is None else Evidence.model_validate(best["evidence"])

    @property
    def best(self) -> Params | None:
        """The best configuration."""
        return None if self.answer is None else self.answer["configurations"][0]["params"]

    @cached_property
    def ended(self) -> list[TrialRecord]:
        """The trials with a finite final value of every objective."""
        found = [record for record in self.records if record.state in RESULT_STATES]
        return [
            record
            for record in found
            if all(finite(final_metrics(record), name) is not None for name in self.objectives)
        ]

    @property
    def failed(self) -> list[TrialRecord]:
        """The trials that failed."""
        return [record for record in self.records if record.state is TrialState.FAILED]


def read(client: Client, name: str) -> Material:
    """Return what the API knows of a study: one request per page of trials and per metric.

    Raises:
        NotFoundError: there is no such study.
    """
    study = client.study(name)
    spec = stored_spec(study["spec"])
    curves = {metric: client.curves(name, metric=metric)["curves"] for metric in modelled_metrics(spec)}
    try:
        answer = client.answer(name)
    except NotFoundError:
        answer = None
    records = records_of(client.trials(name), curves)
    confusion = None if study["best"] is None else _confusion(client, name, study["best"]["number"])
    return Material(study=study, spec=spec, records=records, answer=answer, confusion=confusion)


def _confusion(client: Client, name: str, number: int) -> Confusion | None:
    try:
        return Confusion.model_validate(client.confusion(name, number))
    except NotFoundError:  # nobody has measured it, or the API is of an earlier release
        return None


def modelled_metrics(spec: StudySpec) -> list[str]:
    """Return the metrics that the models use: those of objectives and constraints, and memory."""
    names = [objective.metric for objective in spec.objectives]
    return list(dict.fromkeys([*names, *(constraint.metric for constraint in spec.constraints), MEMORY_METRIC]))


def records_of(trials: Iterable[Json], curves: Mapping[str, Iterable[Json]]) -> list[TrialRecord]:
    """Return trials as records, with the curves of some metrics, by metric, as the API gives them."""
    by_number: dict[int, dict[int, dict[str, float]]] = {}
    for metric, of_metric in curves.items():
        for curve in of_metric:
            rows = by_number.setdefault(curve["number"], {})
            for step, value in zip(curve["steps"], curve["values"], strict=True):
                rows.setdefault(step, {})[metric] = value
    return [_record(trial, by_number.get(trial["number"], {})) for trial in trials]


def _record(trial: Json, curve: Mapping[int, Mapping[str, float]]) -> TrialRecord:
    # What the API does not tell stays at its default.
    same = (TrialRecord.__dataclass_fields__.keys() & trial.keys()) - {
        "state",
        "curve",
        "failure_kind",
        "origin",
        *_TIMES,
    }
    kind, times = trial["failure_kind"], {name: trial[name] for name in _TIMES}
    known: dict[str, Any] = {name: trial[name] for name in same}
    known["lost_on"] = tuple(trial["lost_on"])
    known["origin"] = {"trial": trial["origin"]} if trial.get("origin") else None
    known |= {name: None if at is None else datetime.fromisoformat(at) for name, at in times.items()}
    return TrialRecord(
        **known,
        state=TrialState(trial["state"]),
        curve=dict(sorted(curve.items())),
        failure_kind=None if kind is None else FailureKind(kind),
    )


_TIMES = ("created_at", "started_at", "finished_at")
