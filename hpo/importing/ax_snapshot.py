"""Snapshots of Ax: JSON of a client or of an experiment, read as plain data, without Ax."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import SetupError
from .found import FoundTrial, Results, State

_STATES: Final[Mapping[str, State]] = {
    "COMPLETED": "completed",
    "EARLY_STOPPED": "stopped",
    "FAILED": "failed",
    "ABANDONED": "failed",
}
Points = dict[str, dict[int | None, float]]
"""Values of metrics by step; None for a value that has none."""


def read_ax(path: Path) -> Results:
    """Return the trials of an Ax snapshot that have ended.

    Raises:
        SetupError: it is none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        experiment = document.get("experiment", document)
        trials, name = experiment["trials"], str(experiment.get("name") or path.stem)
        points = _points(experiment)
        found = [_trial(index, trial, points.get(int(index), {})) for index, trial in trials.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SetupError(
            f"{path} is no snapshot of Ax ({type(error).__name__}): write one with `client.save_to_json_file(PATH)`"
        ) from error
    ended = [trial for trial in found if trial is not None]
    return Results(source=f"the Ax experiment {name}"[:300], trials=ended, open=len(found) - len(ended))


def _trial(index: str, trial: Mapping[str, Any], points: Points) -> FoundTrial | None:
    state = _STATES.get(trial["status"]["name"])
    run = trial.get("generator_run") or (trial.get("generator_runs") or [None])[0]
    arms = (run or {}).get("arms") or []
    if state is None or len(arms) != 1:
        return None
    curve: dict[int, dict[str, float]] = defaultdict(dict)
    final = {}
    for metric, values in points.items():
        steps = sorted(step for step in values if step is not None)
        for step in steps:
            curve[step][metric] = values[step]
        final[metric] = values[None] if None in values else values[steps[-1]]
    return FoundTrial(
        name=str(index)[:100],
        params=dict(arms[0]["parameters"]),
        state=state,
        metrics={} if state == "failed" else final,
        curve=dict(curve),
        message=str(trial.get("status_reason") or ""),
    )


def _points(experiment: Mapping[str, Any]) -> dict[int, Points]:
    """Return what was measured, by trial."""
    found: dict[int, Points] = defaultdict(lambda: defaultdict(dict))
    for frame in _frames(experiment.get("data_by_trial") or experiment.get("data") or {}):
        columns = {name: list(column.values()) for name, column in json.loads(frame).items()}
        steps = columns.get("step") or columns.get("progression") or [None] * len(columns["mean"])
        for trial, metric, mean, step in zip(
            columns["trial_index"], columns["metric_name"], columns["mean"], steps, strict=True
        ):
            if isinstance(mean, int | float) and math.isfinite(mean):
                found[int(trial)][str(metric)][None if step is None else int(step)] = float(mean)
    return found


def _frames(value: Any) -> Iterator[str]:
    """Yield the tables within the data of an experiment, as JSON by column."""
    if isinstance(value, Mapping):
        if value.get("__type") == "DataFrame":
            yield value["value"]
        else:
            for inner in value.values():
                yield from _frames(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _frames(inner)
