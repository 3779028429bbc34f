"""What a study has found, as programs written for Optuna read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..client.asking import Study as Asker
from ..client.frames import trials_dataframe
from ..client.http import Client
from ..client.replies import BestTrial, Value
from ..errors import NotFoundError
from .trials import STATES, FrozenTrial, TrialState, frozen

if TYPE_CHECKING:
    import pandas as pd

Direction = Literal["minimize", "maximize"]


class Results:
    """The trials of a study, and its best."""

    def __init__(self, client: Client, name: str, draft: Mapping[str, Any] | None) -> None:
        """Open a study, or keep the `draft` of its spec until it is created."""
        self.client = client
        self.study_name = name
        self._draft = None if draft is None else dict(draft)
        self._asker = Asker(client, name) if draft is None else None
        self._attrs: dict[int, dict[str, Any]] = {}
        self._offset = 1

    @property
    def directions(self) -> list[Direction]:
        """The direction of each objective."""
        return [objective["direction"] for objective in self._spec["objectives"]]

    @property
    def direction(self) -> Direction:
        """The direction of the first objective."""
        return self.directions[0]

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number."""
        return self.get_trials()

    def get_trials(self, deepcopy: bool = True, states: Iterable[TrialState] | None = None) -> list[FrozenTrial]:
        """Return all trials by number, or those in some states. They are read anew: `deepcopy` changes nothing."""
        if self._asker is None:
            return []
        curves = {
            curve["number"]: dict(zip([step - self._offset for step in curve["steps"]], curve["values"], strict=True))
            for curve in self.client.curves(self.study_name)["curves"]
        }
        found = [
            frozen(one, self._objectives, curves.get(one["number"], {}), self._attrs.get(one["number"], {}))
            for one in self.client.iter_trials(self.study_name)
        ]
        wanted = None if states is None else set(states)
        return [one for one in found if wanted is None or one.state in wanted]

    @property
    def best_trial(self) -> FrozenTrial:
        """The trial of the configuration that the study believes to be the best: seldom that with the luckiest value.

        Raises:
            NotFoundError: no trial has a result.
        """
        return self._frozen(self._best["number"])

    @property
    def best_params(self) -> dict[str, Value]:
        """The parameters of `best_trial`."""
        return self.best_trial.params

    @property
    def best_value(self) -> float:
        """The value of `best_trial`."""
        return self._best["value"]

    @property
    def best_trials(self) -> list[FrozenTrial]:
        """The trials of the Pareto front."""
        if self._asker is None:
            return []
        front = set(self.client.answer(self.study_name)["front"])
        return [trial for trial in self.trials if trial.number in front]

    def trials_dataframe(self) -> pd.DataFrame:
        """Return the trials as a table with the columns of Optuna's, and states in its words."""
        found = () if self._asker is None else self.client.iter_trials(self.study_name)
        table = trials_dataframe(found, {"space": {}, **self._spec})
        table["state"] = [STATES[state].name for state in table["state"]]
        return table

    @property
    def _best(self) -> BestTrial:
        if self._asker is None:
            raise NotFoundError(f"study {self.study_name!r} has no trial yet: call optimize first")
        return self.client.best(self.study_name)

    @property
    def _spec(self) -> Mapping[str, Any]:
        return self._asker.spec if self._asker is not None else (self._draft or {})

    @property
    def _objectives(self) -> list[str]:
        return [objective["metric"] for objective in self._spec["objectives"]]

    def _frozen(self, number: int) -> FrozenTrial:
        found = self.client.trial(self.study_name, number)
        metric = self._objectives[0]
        curve = {
            int(step) - self._offset: values[metric] for step, values in found["curve"].items() if metric in values
        }
        return frozen(found, self._objectives, curve, self._attrs.get(number, {}))
