"""The page of a study: what it has found and how sure that is, what runs, what it cost, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fastapi.responses import HTMLResponse

from hpo.activity import stored_progress
from hpo.answer import Answer
from hpo.answer.evidence import evidence_of_winner
from hpo.optimizer.importance import Importance, Trend, explained_sentence
from hpo.results.outcome import final_metrics, gain
from hpo.sentences import event_sentence
from hpo.store.answers import Shown
from hpo.store.data_sets import DataSet
from hpo.store.notes import MOST_CHARACTERS, digest
from hpo.store.overview import Happening
from hpo.store.studies import StudyRow
from hpo.store.workers import WorkerRow
from hpo.trial import RESULT_STATES, StudyState, TrialRecord

from . import curves, paths
from .data_sets import VERSION_CHARACTERS, anchor, data_set_of
from .frame import Viewer, page
from .home import Budget, without_worker
from .proposals import why
from .workers import Doing

MOST_LEADERS: Final = 20
MOST_IMPORTANCES: Final = 12
_MESSAGE_CHARACTERS: Final = 2_000
_LINE_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMaterial:
    """What the store knows of a study, as far as the page shows it."""

    study: StudyRow
    shown: Shown
    ended: Sequence[TrialRecord]
    """Trials with a result, by number: the latest of them, without their curves."""
    running: Sequence[TrialRecord]
    """The running trials, by number, with their curves."""
    best: TrialRecord | None
    versions: Mapping[int, str]
    """The versions of the data, or of the function, of the trials of the leaderboard, by number."""
    waiting: Sequence[TrialRecord]
    """What the optimizer proposes next."""
    failed: Sequence[TrialRecord]
    stopped: Sequence[TrialRecord]
    """The latest, the last one first."""
    happenings: Sequence[Happening]
    importance: Mapping[str, Any] | None
    data_changed: str | None
    few_clips: str | None
    data_set: DataSet | None
    workers: Sequence[WorkerRow]
    missing: Mapping[str, str]
    """What workers have not found for this study, by their names."""
    spec_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An event as the page shows it."""

    at: datetime
    sentence: str
    trial: str | None
    """The address of the trial that it is about."""

    @classmethod
    def of(cls, study: str, happening: Happening) -> Said:
        """Put an event into words."""
        event, number = happening.event, happening.number
        return cls(
            at=event.created_at,
            sentence=event_sentence(event.kind, event.detail, number=number, actor=event.actor),
            trial=None if number is None else paths.of_trial(study, number),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedNote:
    """A note that was not kept."""

    text: str
    """As it was typed."""
    problem: str
    status: int


def study_page(
    material: StudyMaterial, *, now: datetime, viewer: Viewer, refused: RefusedNote | None = None
) -> HTMLResponse:
    """Return the page; a note that was refused stands in its form again, with the reason."""
    study, answer = material.study, material.shown.answer
    metric = study.spec.objectives[0].metric
    best = None if answer is None else answer.winner.chosen
    drawn = [*([material.best] if material.best is not None else []), *material.running]
    return page(
        "study.html",
        viewer=viewer,
        status=200 if refused is None else refused.status,
        refused=refused,
        note_digest=digest(study.note),
        study=study,
        address=paths.of_study(study.name),
        metric=metric,
        goals=[f"{objective.direction} {objective.metric}" for objective in study.spec.objectives],
        budget=Budget.of(study),
        answer=answer,
        shown=material.shown,
        best=best,
        evidence=None if answer is None else evidence_of_winner(answer).lines(),
        leaders=[] if answer is None else answer.candidates[:MOST_LEADERS],
        leaders_versions=_leaders_versions(material),
        front=[] if answer is None else [candidate.chosen for candidate in answer.front],
        running=[(record, _doing(record, now), _last(record, metric)) for record in material.running],
        waiting=[(record, why(record, study.spec.objectives[0], answer)) for record in material.waiting],
        failed=[(record, *_message(record)) for record in material.failed],
        stopped=[(record, _last(record, metric)) for record in material.stopped],
        said=[Said.of(study.name, happening) for happening in material.happenings],
        importances=_importances(material.importance, metric),
        explained=_explained(material.importance, metric),
        importance_outcomes=None if material.importance is None else material.importance.get("outcomes"),
        data_changed=material.data_changed,
        few_clips=material.few_clips,
        data_set=material.data_set,
        data_anchor=None if (data_set := data_set_of(study)) is None else anchor(data_set.root),
        no_worker=without_worker(study, material.workers),
        missing=material.missing,
        most_characters=MOST_CHARACTERS,
        spec_text=material.spec_text,
        curves=curves.curves(study.name, drawn, best=best, metric=metric),
        progress=curves.progress(study.spec, study.name, material.ended, before=_best_before(material)),
        may=_may(study),
    )


def leading_trials(answer: Answer | None) -> list[int]:
    """Return the numbers of the trials of the leaderboard."""
    leaders = () if answer is None else answer.candidates[:MOST_LEADERS]
    return [number for one in leaders for number in one.trials]


def _leaders_versions(material: StudyMaterial) -> list[str] | None:
    """Return the versions of each row of the leaderboard; None where all are of one, so that nothing is to be said."""
    if material.shown.answer is None or len(set(material.versions.values())) < 2:
        return None
    known = material.versions
    return [
        ", ".join(dict.fromkeys(known[number][:VERSION_CHARACTERS] for number in one.trials if number in known))
        for one in material.shown.answer.candidates[:MOST_LEADERS]
    ]


def _best_before(material: StudyMaterial) -> float | None:
    """Return the best value of the first objective before the first trial that is shown, as the answer knows it."""
    if material.shown.answer is None or not material.ended:
        return None
    objective, first = material.study.spec.objectives[0], material.ended[0].number
    earlier = [one.first.observed for one in material.shown.answer.candidates if one.trials[0] < first]
    return max(earlier, key=lambda value: gain(objective, value), default=None)


def may_change(study: StudyRow) -> bool:
    """Return whether a study searches, so that its budget, stopping rule and space can change."""
    is_open = study.state in (StudyState.ACTIVE, StudyState.PAUSED) and study.finished_at is None
    return is_open and study.budget_reached_at is None and study.race is None


def _may(study: StudyRow) -> set[str]:
    """Return which buttons make sense in the state of the study."""
    changes = {"budget", "import"} if may_change(study) else set()
    if study.state is StudyState.ACTIVE:
        return {"pause", "stop", "finalists", *changes}
    if study.state is StudyState.PAUSED:
        return {"resume", "stop", "finalists", *changes}
    has_result = any(study.counts.get(state) for state in RESULT_STATES)
    return {*({"finalists"} if has_result else ()), *({"reopen"} if study.finished_at is not None else ())}


def _doing(record: TrialRecord, now: datetime) -> Doing | None:
    progress = stored_progress(record.progress)
    if progress is None:
        return None
    return Doing.of(progress, (now - record.progress_at).total_seconds() if record.progress_at is not None else 0.0)


def _last(record: TrialRecord, metric: str) -> float | None:
    """Return the final value of a metric, or the one that the last epoch reported."""
    if record.metrics is not None:
        return final_metrics(record).get(metric)
    step = record.last_step
    return None if step is None else record.curve[step].get(metric)


def _message(record: TrialRecord) -> tuple[str, str]:
    """Return the last line of why a trial failed, which says what it was, and as much of all lines as is shown."""
    text = (record.failure_message or "").strip()
    last = text.splitlines()[-1] if text else "no message was given"
    whole = text if len(text) <= _MESSAGE_CHARACTERS else f"… {text[-_MESSAGE_CHARACTERS:]}"
    return last[:_LINE_CHARACTERS], whole


def _explained(found: Mapping[str, Any] | None, metric: str) -> str:
    """Return how much of a metric the model explains, as a sentence; an empty text where nobody has computed it."""
    known = (found or {}).get("explained", {})
    if metric not in known:
        return ""
    return explained_sentence(metric, known[metric])


def _importances(found: Mapping[str, Any] | None, metric: str) -> list[tuple[Importance, str]]:
    """Return what matters most for a metric, with the direction in words; what a later release wrote is left out."""
    rows = (found or {}).get("importances", {}).get(metric, [])
    known = []
    for row in rows[:MOST_IMPORTANCES]:
        try:
            trend = None if row.get("trend") is None else Trend(row["trend"])
            low, high = row.get("low"), row.get("high")
            one = Importance(
                parameter=row["parameter"], share=float(row["share"]), low=low, high=high, trend=trend, at=row.get("at")
            )
        except (KeyError, ValueError):
            continue
        known.append((one, one.direction(metric)))
    return known
