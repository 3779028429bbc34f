"""A study of a person's own function, from the arguments of `hpo.tune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..errors import SetupError

Space = Mapping[str, Any]
Objective = str | Mapping[str, Literal["maximize", "minimize"]]
EPOCHS: Final = 40
"""How many epochs a function has that asks for epochs and is not told how many."""
MODEL_TRIALS: Final = 1_000
"""Who plans more trials has a cheap function, and gets `tpe`: what the models of `ax` cost beyond was not measured."""


def optimizer_of(section: Any, trials: Any) -> Any:
    """Return the section `optimizer` of a spec, with a name where it has none and so many trials are planned.

    What is no section or no number is left as it is: who reads the spec says what is wrong with it.
    """
    are_many = isinstance(trials, int) and trials > MODEL_TRIALS
    return {"name": "tpe", **section} if are_many and isinstance(section, Mapping) else section


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be tuned, as a person says it."""

    space: Space
    objective: Objective | Sequence[Objective]
    direction: Literal["maximize", "minimize"]
    metrics: Mapping[str, Any]
    epochs: int
    budget: Mapping[str, Any]
    sections: Mapping[str, Any]
    """Further sections of a study spec, such as `constraints` and `early_stopping`."""
    base: Mapping[str, Any]
    timeout_minutes: float | None

    def spec(self, name: str) -> dict[str, Any]:
        """Return the study spec of that name, as it is sent to the service, which checks it.

        Raises:
            SetupError: a parameter or an objective is written in no known way.
        """
        objectives = self._objectives()
        task: dict[str, Any] = {
            "kind": "custom",
            "metrics": {**{metric: direction for metric, direction in objectives}, **self.metrics},
            "epochs": self.epochs,
            "base": dict(self.base),
        }
        if self.timeout_minutes is not None:
            task["timeout_minutes"] = self.timeout_minutes
        return {
            "name": name,
            "objectives": [{"metric": metric, "direction": direction} for metric, direction in objectives],
            "task": task,
            "space": {key: parameter(key, value) for key, value in self.space.items()},
            "budget": dict(self.budget),
            **self.sections,
        }

    def _objectives(self) -> list[tuple[str, str]]:
        several = [self.objective] if isinstance(self.objective, str | Mapping) else list(self.objective)
        found: list[tuple[str, str]] = []
        for one in several:
            found += [(one, self.direction)] if isinstance(one, str) else [(str(key), one[key]) for key in one]
        if not found:
            raise SetupError('objective: name a metric, such as objective="accuracy"')
        return found


def parameter(name: str, value: object) -> dict[str, Any]:
    """Return a parameter as a spec writes it: a mapping as it is, a tuple as a range, a list or a set as choices.

    Raises:
        SetupError: it is none of these.
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | set | frozenset):
        return {"type": "categorical", "choices": sorted(value, key=str) if not isinstance(value, list) else value}
    if isinstance(value, range) and value.step == 1 and len(value):
        return {"type": "int", "low": value[0], "high": value[-1]}
    if isinstance(value, tuple) and len(value) in (2, 3) and (len(value) == 2 or value[2] == "log"):
        low, high, *log = value
        kinds = {type(low), type(high)}
        if kinds <= {int, float}:
            kind = "int" if kinds == {int} else "float"
            return {"type": kind, "low": low, "high": high, **({"log": True} if log else {})}
    raise SetupError(
        f"space[{name!r}]: {value!r} is no parameter; write (low, high), (low, high, 'log'), a list of choices, or a "
        "mapping as in a study spec, such as {'type': 'float', 'low': 0.1, 'high': 1}"
    )
