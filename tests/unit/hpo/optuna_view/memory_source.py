"""A source of one study whose records are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from hpo.answer import answer
from hpo.optuna_view.storage import StudyView, visible_records
from hpo.optuna_view.trials import distributions, frozen_trial
from hpo.spec import StudySpec
from hpo.trial import TrialRecord


class MemorySource:
    """The study `spec` with `records`."""

    def __init__(self, spec: StudySpec, records: Sequence[TrialRecord]) -> None:
        self._study = StudyView(id=0, name=spec.name, spec=spec)
        self._notes: dict[str, Any] = {}
        self._records = records
        known = distributions(spec)
        self._trials = [frozen_trial(spec, record, known) for record in visible_records(records)]

    def studies(self) -> Sequence[StudyView]:
        """Return the one study."""
        return [self._study]

    def frozen_trials(self, study: StudyView) -> Sequence[FrozenTrial]:
        """Return its trials."""
        return self._trials

    def study_id_of(self, trial_id: int) -> int:
        """Return the one study's id for every trial of it."""
        if any(trial._trial_id == trial_id for trial in self._trials):
            return self._study.id
        raise KeyError(f"there is no trial with the id {trial_id}")

    def best_number(self, study: StudyView) -> int | None:
        """Return the trial of the best configuration."""
        found = answer(study.spec, self._records)
        return None if found is None else found.winner.chosen

    def notes(self, study_id: int) -> Mapping[str, Any]:
        """Return the notes."""
        return self._notes

    def set_note(self, study_id: int, key: str, value: Any) -> None:
        """Keep a note as long as this object lives."""
        self._notes[key] = value
