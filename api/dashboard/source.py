"""All studies of the database, as the source that the dashboard's Optuna storage reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from optuna.trial import FrozenTrial

from hpo.answer import Answer
from hpo.answer.evidence import evidence_of_winner
from hpo.optuna_view.storage import StudyView, visible_records
from hpo.optuna_view.trials import Distributions, distributions, frozen_trial, outcome
from hpo.plain_text import plain
from hpo.service import importance
from hpo.store import Database, answers, quarantine, studies, trials, workers
from hpo.store.answers import Shown
from hpo.store.workers import WorkerRow
from hpo.trial import StudyState, TrialRecord, TrialState

from .sampling import Choice, sentence

MOST_REASONS: Final = 3
"""Of quarantines that are shown; the page of the workers has all."""
REASON_CHARACTERS: Final = 300
NOTE_CHARACTERS: Final = 2_000
"""Of a part of a note, as the dashboard keeps it."""


def best_of(found: Answer) -> str:
    """Return what is known of the best configuration of a study, in one text."""
    first, *others = evidence_of_winner(found).lines()
    return ". ".join([f"Trial {found.winner.chosen}: {first}", *(f"{line[0].upper()}{line[1:]}" for line in others)])


def _best(shown: Shown) -> dict[str, str]:
    """Return what is known of the best configuration at once, and of how many results that is."""
    if shown.answer is None:
        later = "is being computed" if shown.failure is None else f"could not be computed ({shown.failure})"
        return {} if shown.is_current else {"best": f"of {shown.results:,} results, {later}"}
    later = "the others follow" if shown.failure is None else f"that of all could not be computed ({shown.failure})"
    part = "" if shown.is_current else f". Of {shown.counted:,} of {shown.results:,} results; {later}"
    return {"best": best_of(shown.answer) + part}


def _as_dashboard(note: str) -> dict[str, Any]:
    """Return a note as the dashboard keeps one, in parts of a bounded length."""
    parts = [note[at : at + NOTE_CHARACTERS] for at in range(0, len(note), NOTE_CHARACTERS)]
    version: dict[str, Any] = {"dashboard:note_ver": 1} if parts else {}
    return version | {f"dashboard:note_str:{place}": part for place, part in enumerate(parts)}


def _of_workers(heard: Sequence[WorkerRow], state: StudyState) -> dict[str, str]:
    """Return what is worth knowing of the workers of a study: those in quarantine and why, while it is active."""
    shut = [row for row in heard if row.quarantined_at is not None or row.host_quarantined_at is not None]
    if state is not StudyState.ACTIVE or not shut:
        return {}
    reasons = list(dict.fromkeys(_why(row) for row in shut))
    more = [f"{len(reasons) - MOST_REASONS} more"] if len(reasons) > MOST_REASONS else []
    why = "; ".join([*reasons[:MOST_REASONS], *more])
    return {"workers": f"{len(shut)} of {len(heard)} in quarantine: {why}. The page /workers says how to end it"}


def _why(row: WorkerRow) -> str:
    """Return why a worker, or all workers of its host, get no trials."""
    if row.host_fault is not None:
        why = quarantine.host_sentence(row.host, row.host_fault, row.host_fault_message)
    else:
        why = f"{row.name}: {quarantine.sentence(row.fault or '', row.fault_message, row.faults)}"
    return plain(why if len(why) <= REASON_CHARACTERS else f"{why[:REASON_CHARACTERS]}...")


def _end(record: TrialRecord) -> tuple[int, TrialState, datetime | None]:
    """Return what identifies a finished trial: a late result may still replace a failure."""
    return record.id, record.state, record.finished_at


class DatabaseSource:
    """All studies of a database. A finished trial is translated once and kept; notes live as long as this object.

    Safe to use from several threads.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._finished: dict[int, dict[tuple[int, TrialState, datetime | None], FrozenTrial]] = {}
        self._distributions: dict[int, Distributions] = {}
        self._study_of: dict[int, int] = {}
        self._notes: dict[int, dict[str, Any]] = {}
        self._noted: dict[int, str] = {}

    def studies(self) -> Sequence[StudyView]:
        """Read all studies."""
        with self._database.transaction() as connection:
            rows = studies.list_all(connection)
            with_model = [row.id for row in rows if row.spec.optimizer.name == "ax"]
            found = answers.at_once(connection, rows, self._database)
            heard = workers.list_all(connection)
            matters = {id_: known["message"] for id_ in with_model if (known := importance.last(connection, id_))}
        with self._lock:
            alive = {row.id for row in rows}
            self._finished = {id_: kept for id_, kept in self._finished.items() if id_ in alive}
            self._distributions = {id_: kept for id_, kept in self._distributions.items() if id_ in alive}
            self._noted = {row.id: row.note for row in rows if row.note is not None}
        return [
            StudyView(
                id=row.id,
                name=row.name,
                spec=row.spec,
                # The page shows the first five: what says most comes first.
                user_attrs=({"trials shown": said} if (said := sentence(sum(row.counts.values()))) else {})
                | {"state": row.state.value}
                | ({"state_reason": row.state_reason} if row.state_reason else {})
                | ({"degraded": row.degraded} if row.degraded else {})
                | _of_workers([worker for worker in heard if worker.takes(row.spec)], row.state)
                | _best(found[row.id])
                | ({"importance": matters[row.id]} if row.id in matters else {})
                | {
                    "gpu_hours": round(row.gpu_seconds_spent / 3600, 4),
                    "gpu_hours_failed": round(row.gpu_seconds_failed / 3600, 4),
                    "gpu_hours_startup": round(row.gpu_seconds_of_startup / 3600, 4),
                },
            )
            for row in sorted(rows, key=lambda row: row.id)
        ]

    def frozen_trials(self, study: StudyView) -> Sequence[FrozenTrial]:
        """Read the trials of a study, with curves those that are not known to be finished, and translate these."""
        return self._translated(study, list)

    def chosen_trials(self, study: StudyView, choose: Choice) -> Sequence[FrozenTrial]:
        """Read those trials of a study that `choose` leaves, and no curves of others, unless their values need them."""
        if study.spec.last_epochs:
            found = self.frozen_trials(study)
            numbers = {one.number for one in choose(found)}
            return [trial for trial in found if trial.number in numbers]

        def chosen(outlines: Sequence[TrialRecord]) -> list[TrialRecord]:
            numbers = {one.number for one in choose([outcome(study.spec, outline) for outline in outlines])}
            return [outline for outline in outlines if outline.number in numbers]

        return self._translated(study, chosen)

    def _translated(
        self, study: StudyView, chosen: Callable[[Sequence[TrialRecord]], list[TrialRecord]]
    ) -> list[FrozenTrial]:
        with self._lock:
            known = self._distributions.setdefault(study.id, distributions(study.spec))
            finished = self._finished.setdefault(study.id, {})
            kept = dict(finished)
        with self._database.transaction() as connection:
            seen = visible_records(trials.outlines(connection, study.id))
            outlines = chosen(seen)
            missing = [outline.id for outline in outlines if _end(outline) not in kept]
            read = {record.id: record for record in trials.by_ids(connection, missing)}
        found = []
        for outline in outlines:
            record = read.get(outline.id, outline)
            trial = kept.get(_end(record)) or frozen_trial(study.spec, record, known)
            if record.state.is_terminal:
                kept[_end(record)] = trial
            found.append(trial)
        with self._lock:
            finished.update(kept)
            self._study_of.update((record.id, study.id) for record in seen)
        return found

    def study_id_of(self, trial_id: int) -> int:
        """Return the study of a trial that was read before, else look through all studies."""
        if trial_id not in self._study_of:
            for study in self.studies():
                self.frozen_trials(study)
        return self._study_of[trial_id]

    def best_number(self, study: StudyView) -> int | None:
        """Return the trial that `hpo best` shows."""
        with self._database.transaction() as connection:
            found = answers.best(connection, studies.get_by_id(connection, study.id))
        return None if found is None else found.number

    def notes(self, study_id: int) -> Mapping[str, Any]:
        """Return the note of a study that its page shows too, unless one was typed into this view."""
        return _as_dashboard(self._noted.get(study_id, "")) | self._notes.get(study_id, {})

    def set_note(self, study_id: int, key: str, value: Any) -> None:
        """Keep a note."""
        with self._lock:
            self._notes.setdefault(study_id, {})[key] = value
