"""A trial as objectives written for Optuna know it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from ..client.asked_trial import AskedTrial
from ..client.replies import Value
from ..errors import ConflictError, SetupError
from ..trial import Decision
from .suggested import Declared, Recording, categorical_parameter, float_parameter, int_parameter, is_same
from .trials import FrozenTrial, TrialState

__all__ = ["FrozenTrial", "Trial", "TrialPruned", "TrialState"]
"""As in `optuna.trial`."""

_EXPLANATION: Final = (
    "the space of a study is known before its trials run, and holds what the first trial suggested. Declare parameters "
    "that only some trials have: create_study(space={..., NAME: {..., 'when': {...}}})"
)


_INSTEAD: Final = {
    "suggest_uniform": "write suggest_float(name, low, high)",
    "suggest_loguniform": "write suggest_float(name, low, high, log=True)",
    "suggest_discrete_uniform": "write suggest_float(name, low, high, step=q)",
}
_ATTRS_BYTES: Final = 60 * 1024
"""The service keeps 64 KiB about how a trial ran."""


class TrialPruned(Exception):
    """The objective ends here: the study has stopped its trial."""


Starting = Callable[[Recording], AskedTrial]
"""What begins the first trial once its space is known."""


class Trial:
    """One run of an objective."""

    def __init__(
        self,
        spec: Mapping[str, Any] | None,
        asked: AskedTrial | None = None,
        *,
        recording: Recording | None = None,
        start: Starting | None = None,
    ) -> None:
        """Make a trial that was asked for; or, with `recording` and `start`, one that finds out what the space is."""
        self._spec = spec
        self._asked = asked
        self._recording = recording
        self._start = start
        self._used: set[str] = set()
        self._user_attrs: dict[str, Any] = {}
        self._offset: int | None = None

    @property
    def number(self) -> int:
        """The number of the trial in its study, from 0."""
        return 0 if self._asked is None else self._asked.number

    @property
    def params(self) -> dict[str, Value]:
        """The values that were suggested so far."""
        if self._asked is None and self._recording is not None:
            return dict(self._recording.values)
        return {name: value for name, value in self._known().items() if name in self._used}

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """What `set_user_attr` has kept."""
        return MappingProxyType(self._user_attrs)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep something about the trial, as JSON; its export shows it once the trial has ended.

        Raises:
            SetupError: it cannot be written as JSON, or all of them take too much room.
        """
        try:
            kept = {**self._user_attrs, str(key): json.loads(json.dumps(value, allow_nan=False))}
        except (TypeError, ValueError) as error:
            raise SetupError(
                f"set_user_attr({key!r}): {value!r:.80} cannot be kept as JSON ({error}): keep finite numbers, texts, "
                "lists and dicts"
            ) from error
        if len(json.dumps(kept)) > _ATTRS_BYTES:
            raise SetupError(
                f"set_user_attr({key!r}): the attributes of a trial may take 60 KiB as JSON: write larger things to a "
                "file, and keep its path"
            )
        self._user_attrs = kept

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return the value of a real parameter between `low` and `high`."""
        return float(self._suggest(name, float_parameter(low, high, step=step, log=log)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return the value of a whole number from `low` to `high`."""
        return int(self._suggest(name, int_parameter(low, high, step=step, log=log)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of `choices`: numbers, texts, true or false."""
        return self._suggest(name, categorical_parameter(name, list(choices)))

    def __getattr__(self, name: str) -> Any:
        """Say what to write in place of a method that trials of Optuna have, or had."""
        instead = _INSTEAD.get(name, "docs/from-optuna.md lists what a trial has")
        raise AttributeError(f"trials of hpo.optuna have no {name!r}: {instead}")

    def report(self, value: float, step: int) -> None:
        """Deliver the value of the objective after `step`: counted from 0 or from 1, and the same in each trial.

        Raises:
            ReportError: `step` is beyond the `steps` of the study.
            StaleLeaseError: the trial was given to somebody else meanwhile.
        """
        if self._offset is None:
            self._offset = 1 if step == 0 else 0
        number = float(value)
        if math.isfinite(number):  # the objective will hardly return anything better, and its trial fails then
            self.asked.report(step + self._offset, number)

    def should_prune(self) -> bool:
        """Return whether the study wants the trial to end here."""
        return self.asked.decision is not Decision.CONTINUE

    @property
    def asked(self) -> AskedTrial:
        """The trial of the study; the first one begins with this, since its space is known now."""
        if self._asked is None:
            if self._start is None or self._recording is None:
                raise ConflictError("this trial has not begun")
            self._asked = self._start(self._recording)
            self._used = set(self._recording.declared)
        return self._asked

    @property
    def has_begun(self) -> bool:
        """Whether it is a trial of the study already."""
        return self._asked is not None

    @property
    def offset(self) -> int:
        """What is added to the steps of the objective to have ours, which begin with 1."""
        return self._offset or 0

    @property
    def unused(self) -> list[str]:
        """Parameters of the trial that the objective never asked for."""
        return [] if self._asked is None else [name for name in self._asked.params if name not in self._used]

    def _known(self) -> dict[str, Value]:
        asked = self.asked
        return {**asked.config, **asked.params}

    def _suggest(self, name: str, declared: Declared) -> Any:
        if self._asked is None and self._recording is not None:
            return self._recording.suggest(name, declared)
        known = self._known()
        kept = (self._spec or {}).get("space", {}).get(name)
        if name not in known or (kept is None and "fixed" not in declared):
            what = "is not one of the values that this trial has" if kept else "is not in the space of the study"
            raise SetupError(f"{name!r} {what}: {_EXPLANATION}")
        if (known[name] != declared["fixed"]) if "fixed" in declared else not is_same(declared, kept or {}):
            raise SetupError(
                f"{name!r} is suggested as {declared}, but the space of the study has {kept or known[name]}: ranges "
                "cannot change within a study; give the new ones to a study of another name"
            )
        self._used.add(name)
        return known[name]

    def take_over(self, spec: Mapping[str, Any]) -> None:
        """Say what the space of the study is, once it is there."""
        self._spec = spec
