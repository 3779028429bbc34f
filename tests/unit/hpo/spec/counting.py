"""A kind of task that nothing in `hpo` knows: metrics named in the spec, settings of any name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

from hpo.protocol import Lease
from hpo.results.export import Export
from hpo.spec import Metric, StudySpec, TaskConfig
from hpo.spec.tasks import KINDS
from hpo.spec.tasks.task import Direction
from hpo.trial import Params

RAW: dict[str, Any] = {
    "name": "counting",
    "objectives": [{"metric": "misses"}],
    "constraints": ["hits >= 0.25"],
    "task": {
        "kind": "counting",
        "measures": {"misses": "minimize", "hits": "maximize"},
        "shares": ["hits"],
        "epochs": 3,
        "base": {"tool": {"kind": "abacus"}},
    },
    "space": {
        "speed": {"type": "float", "low": 0.5, "high": 2.0},
        "clip.frames": {"type": "categorical", "choices": ["few", "many"]},
    },
    "early_stopping": {"name": "median", "startup_trials": 1},
    "budget": {"trials": 20, "gpu_hours": 1, "target": {"misses": 2}},
}


class CountingTask(TaskConfig):
    """Count something with any settings."""

    kind: Literal["counting"]
    measures: dict[str, Direction]
    shares: tuple[str, ...] = ()

    @property
    def reported_metrics(self) -> Mapping[str, Metric]:
        return {
            name: Metric(direction=direction, meaning="counted", is_share=name in self.shares)
            for name, direction in self.measures.items()
        }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        return {"patience": 1}

    def invalid_value(self, key: str, value: object) -> str | None:
        if not key.islower():
            raise KeyError(f"the setting {key!r} is not in small letters")
        return f"{key} is never 13" if value == 13 else None

    def config(self, params: Params, *, seed: int) -> dict[str, Any]:
        return {"seed": seed, **self.defaults(), **self.base, **params}

    def config_problems(self, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for key, value in config.items():
            if wrong := self.invalid_value(key, value):
                yield key, wrong


@contextmanager
def counting_registered() -> Iterator[None]:
    """Have `CountingTask` among the kinds, as if its line stood in `KINDS`."""
    models = (StudySpec, Lease, Export)
    with patch.dict(KINDS, {"counting": CountingTask}):
        for model in models:
            model.model_rebuild(force=True)
        yield
    for model in models:
        model.model_rebuild(force=True)
