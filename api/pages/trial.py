"""The page of a trial: its configuration beside the best one, its curves, its log, and with what it ran."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fastapi.responses import HTMLResponse

from hpo.activity import stored_progress
from hpo.protocol import Confusion
from hpo.results.outcome import final_metrics
from hpo.store.answers import Shown
from hpo.store.logs import AttemptLog
from hpo.store.overview import Happening
from hpo.store.studies import StudyRow
from hpo.store.trials import RunEnvironment
from hpo.trial import RESULT_STATES, ParamValue, TrialRecord, TrialState

from . import curves, paths
from .confusion import ConfusionSummary, summary_of
from .frame import Viewer, page
from .study import Said
from .workers import Doing

LOG_CHARACTERS: Final = 20_000
"""The page shows the end of the log."""
_OPEN: Final = (TrialState.SUGGESTED, TrialState.RUNNING, TrialState.PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialMaterial:
    """What the store knows of a trial, as far as the page shows it."""

    study: StudyRow
    shown: Shown
    trial: TrialRecord
    best: TrialRecord | None
    evidence: Sequence[str]
    """What is known of its configuration, as sentences; empty where it has no result."""
    log: AttemptLog | None
    ran: RunEnvironment
    confusion: Confusion | None
    is_being_cancelled: bool
    waits_for: str | None
    happenings: Sequence[Happening]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A parameter of the trial and of the best one."""

    name: str
    value: ParamValue | None
    best: ParamValue | None

    @property
    def differs(self) -> bool:
        """Whether the best trial has another value."""
        return self.value != self.best


def trial_page(material: TrialMaterial, *, now: datetime, viewer: Viewer) -> HTMLResponse:
    """Return the page."""
    study, trial, best = material.study, material.trial, material.best
    metric = study.spec.objectives[0].metric
    is_best = best is not None and best.number == trial.number
    drawn = [trial] if best is None or is_best else [trial, best]
    return page(
        "trial.html",
        viewer=viewer,
        study=study,
        shown=material.shown,
        trial=trial,
        study_address=paths.of_study(study.name),
        address=paths.of_trial(study.name, trial.number),
        metric=metric,
        best=None if is_best else best,
        is_best=is_best,
        evidence=material.evidence,
        rows=_rows(trial, best),
        metrics=_metrics(trial),
        doing=_doing(trial, now),
        curves=curves.curves(study.name, drawn, best=None if best is None else best.number, metric=metric),
        confusion=_summary(material),
        log=material.log,
        log_text="" if material.log is None else _end(material.log.text),
        ran=material.ran,
        environment=json.dumps(material.ran.environment, indent=2, ensure_ascii=False),
        is_being_cancelled=material.is_being_cancelled,
        waits_for=material.waits_for,
        said=[Said.of(study.name, happening) for happening in material.happenings],
        may_cancel=trial.state in _OPEN and not material.is_being_cancelled,
        may_delete=trial.state in (*RESULT_STATES, TrialState.FAILED),
        now=now,
    )


def _summary(material: TrialMaterial) -> ConfusionSummary | None:
    found = material.confusion
    return None if found is None else summary_of(found, clip_word=material.study.spec.task.clip_word)


def _rows(trial: TrialRecord, best: TrialRecord | None) -> list[Row]:
    others = {} if best is None else best.params
    names = [*trial.params, *(name for name in others if name not in trial.params)]
    return [Row(name=name, value=trial.params.get(name), best=others.get(name)) for name in names]


def _metrics(trial: TrialRecord) -> dict[str, float]:
    """Return the final metrics, or those of the last epoch."""
    if trial.metrics is not None:
        return dict(final_metrics(trial))
    return {} if trial.last_step is None else dict(trial.curve[trial.last_step])


def _doing(trial: TrialRecord, now: datetime) -> Doing | None:
    progress = stored_progress(trial.progress)
    if progress is None:
        return None
    return Doing.of(progress, (now - trial.progress_at).total_seconds() if trial.progress_at is not None else 0.0)


def _end(text: str) -> str:
    """Return the end of a log, with a line for each state of a bar that was drawn over itself."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return lines if len(lines) <= LOG_CHARACTERS else f"… {lines[-LOG_CHARACTERS:]}"
