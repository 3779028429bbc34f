"""Our studies as a storage of Optuna, for the dashboard.

`StudyStorage` answers every read of `optuna.storages.BaseStorage` from a `StudySource` and refuses every write, but
for the notes that a person types into optuna-dashboard. Withdrawn trials are hidden: nothing was ever run for them.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from ..errors import ConflictError
from ..results.outcome import gain
from ..results.ranking import Result, best_first
from ..spec import StudySpec
from ..trial import TrialRecord, TrialState
from .trials import CONSTRAINTS_KEY, directions

METRIC_NAMES_KEY: Final = "study:metric_names"
_NOTE_PREFIX: Final = "dashboard:"
_RESULT_STATES: Final = {OptunaState.COMPLETE: TrialState.COMPLETED, OptunaState.PRUNED: TrialState.STOPPED}


class ReadOnlyStorageError(ConflictError):
    """This view of the studies is read-only; change a study with the `hpo` command or under `/v1`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """What the adapter needs to know of a study. `user_attrs` are shown on its dashboard page."""

    id: int
    name: str
    spec: StudySpec
    user_attrs: Mapping[str, Any] = field(default_factory=dict)


class StudySource(Protocol):
    """Where studies and their records come from. Unknown ids are a KeyError."""

    def studies(self) -> Sequence[StudyView]:
        """Return all studies, in the order of their ids."""
        ...

    def frozen_trials(self, study: StudyView) -> Sequence[FrozenTrial]:
        """Return the trials of a study by number, withdrawn ones left out."""
        ...

    def study_id_of(self, trial_id: int) -> int:
        """Return the study that a trial belongs to."""
        ...

    def best_number(self, study: StudyView) -> int | None:
        """Return the number of the trial that stands for the best configuration, None where there is none."""
        ...

    def notes(self, study_id: int) -> Mapping[str, Any]:
        """Return the dashboard notes of a study, by attribute name."""
        ...

    def set_note(self, study_id: int, key: str, value: Any) -> None:
        """Keep a dashboard note."""
        ...


class StudyStorage(BaseStorage):
    """A read-only Optuna storage over `source`."""

    def __init__(self, source: StudySource) -> None:
        self._source = source

    def __getstate__(self) -> NoReturn:
        raise TypeError("a view of a database cannot be pickled; make a new one in the other process")

    # ---------------------------------------------------------------- reading studies

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies with their directions and attributes."""
        return [self._frozen_study(study) for study in self._source.studies()]

    def get_study_id_from_name(self, study_name: str) -> int:
        """Find a study by its name; KeyError where there is none."""
        for study in self._source.studies():
            if study.name == study_name:
                return study.id
        raise KeyError(f"there is no study {study_name!r}")

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the name of a study."""
        return self._study(study_id).name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the direction of every objective."""
        return directions(self._study(study_id).spec)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return what the dashboard shows of a study."""
        return dict(self._study(study_id).user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the names of the objectives, and the notes."""
        return self._system_attrs(self._study(study_id))

    # ---------------------------------------------------------------- reading trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Find a trial by its id; KeyError where there is none."""
        study = self._study(self._source.study_id_of(trial_id))
        for trial in self._source.frozen_trials(study):
            if trial._trial_id == trial_id:
                return trial
        raise KeyError(f"there is no trial with the id {trial_id}")

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of a study in the order of their numbers."""
        trials = self._source.frozen_trials(self._study(study_id))
        found = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Find a trial by its number, which is not its place in the list: withdrawn trials are hidden."""
        for trial in self._source.frozen_trials(self._study(study_id)):
            if trial.number == trial_number:
                return trial._trial_id
        raise KeyError(f"there is no trial {trial_number} in this study")

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the trial that `hpo best` shows; the completed one nearest to feasible while it shows none.

        Raises:
            ValueError: no trial has a result.
            RuntimeError: the study has several objectives.
        """
        study = self._study(study_id)
        if len(study.spec.objectives) > 1:
            raise RuntimeError("Best trial can be obtained only for single-objective optimization.")
        trials = self.get_all_trials(study_id, deepcopy=False, states=tuple(_RESULT_STATES))
        by_number = {trial.number: trial for trial in trials if trial.values is not None}
        if not by_number:
            raise ValueError("No trials are completed yet.")
        number = self._source.best_number(study)
        if number in by_number:
            return by_number[number]
        return by_number[best_first(_result(study.spec, trial) for trial in by_number.values())[0].number]

    # ---------------------------------------------------------------- writing: notes and nothing else

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keep a dashboard note; every other attribute is refused."""
        if not (key.startswith(_NOTE_PREFIX) and "note" in key):
            _refuse()
        self._source.set_note(self._study(study_id).id, key, value)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Refused: studies are created from a spec."""
        _refuse()

    def delete_study(self, study_id: int) -> None:
        """Refused."""
        _refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Refused: trials come from the optimizer."""
        _refuse()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Refused."""
        _refuse()

    def set_trial_state_values(self, trial_id: int, state: OptunaState, values: Sequence[float] | None = None) -> bool:
        """Refused: only a lease moves a trial."""
        _refuse()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Refused: only a lease reports."""
        _refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()

    # ---------------------------------------------------------------- inside

    def _study(self, study_id: int) -> StudyView:
        for study in self._source.studies():
            if study.id == study_id:
                return study
        raise KeyError(f"there is no study with the id {study_id}")

    def _frozen_study(self, study: StudyView) -> FrozenStudy:
        return FrozenStudy(
            study_name=study.name,
            direction=None,
            directions=directions(study.spec),
            user_attrs=dict(study.user_attrs),
            system_attrs=self._system_attrs(study),
            study_id=study.id,
        )

    def _system_attrs(self, study: StudyView) -> dict[str, Any]:
        names = [objective.metric for objective in study.spec.objectives]
        return {METRIC_NAMES_KEY: names, **self._source.notes(study.id)}


def visible_records(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    kept = [record for record in records if record.state is not TrialState.WITHDRAWN]
    return sorted(kept, key=lambda record: record.number)


def _result(spec: StudySpec, trial: FrozenTrial) -> Result:
    return Result(
        number=trial.number,
        state=_RESULT_STATES[trial.state],
        gains=tuple(map(gain, spec.objectives, trial.values)),
        violation=sum(max(float(value), 0.0) for value in trial.system_attrs.get(CONSTRAINTS_KEY, ())),
    )


def _refuse() -> NoReturn:
    raise ReadOnlyStorageError
