"""A function of the user's own: the kind of task `custom`, which names its metrics and takes settings of any name.

Nothing here says what runs: a worker is started with a function (`hpo-worker --entry MODULE:FUNCTION`), and a spec,
which may be somebody else's, cannot choose another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator

from ...trial import Params
from ..parameters import Strict
from .task import Direction, Metric, TaskConfig

_SETTING: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_MOST_CHARACTERS: Final = 200


class MetricSpec(Strict):
    """What a metric of a study is. `maximize` or `minimize` alone stands for its direction."""

    direction: Direction
    share: StrictBool = False
    """Whether it lies between 0 and 1: other values are refused, and a bound of 90 is taken for a slip of 0.9."""
    meaning: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="before")
    @classmethod
    def _direction_alone(cls, value: Any) -> Any:
        return {"direction": value} if isinstance(value, str) else value


def _metric_name(name: str) -> str:
    # A keyword of `Trial.report`, and a word of a constraint.
    if not (name.isidentifier() and name.isascii()) or len(name) > 100:
        raise ValueError(f"{name!r} is not the name of a metric: use a word of letters, digits and _, at most 100")
    return name


MetricName = Annotated[str, AfterValidator(_metric_name)]


class CustomTask(TaskConfig):
    """Run a function of the user's own. `base` and space hold its settings, of any names."""

    kind: Literal["custom"]
    metrics: Annotated[dict[MetricName, MetricSpec], Field(min_length=1, max_length=100)]
    """What the function reports."""
    epochs: Annotated[StrictInt, Field(ge=1, le=10_000)] = 1
    """The most times that a trial reports; 1 for a function without epochs."""

    @property
    def reported_metrics(self) -> Mapping[str, Metric]:
        """The metrics that the study names."""
        return {
            name: Metric(direction=metric.direction, meaning=metric.meaning, is_share=metric.share)
            for name, metric in self.metrics.items()
        }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return nothing: defaults are in the function."""
        return {}

    def invalid_value(self, key: str, value: object) -> str | None:
        """Return why `value` is no setting: it must be a number, a word, true or false.

        Raises:
            KeyError: `key` cannot be the name of a setting.
        """
        if len(key) > _MOST_CHARACTERS or not _SETTING.fullmatch(key):
            raise KeyError(f"{key!r} cannot be the name of a setting: write words of letters, digits and _, with dots")
        if key == "seed" and (type(value) is not int or not 0 <= value < 2**31):
            return f"{value!r} is not a valid seed: it must be a whole number from 0 to {2**31 - 1}"
        if not isinstance(value, bool | int | float | str):
            return f"{value!r} is not a value; give a number, a word, true or false"
        return None

    def config(self, params: Params, *, seed: int) -> dict[str, Any]:
        """Return base and `params` joined."""
        return {"seed": seed, **self.base, **params}

    def config_problems(self, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for every key or value that cannot be a setting."""
        for key, value in config.items():
            try:
                wrong = self.invalid_value(key, value)
            except KeyError as error:
                wrong = str(error.args[0])
            if wrong is not None:
                yield key, wrong
