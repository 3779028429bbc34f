"""Learning curves and progress as the script of the charts takes them: bounded, whatever a study holds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from hpo.results.outcome import final_metrics, finite, gain, is_feasible
from hpo.spec import StudySpec
from hpo.trial import TrialRecord

from . import paths

MOST_CURVES: Final = 12
MOST_POINTS: Final = 150
"""Epochs of a curve that are drawn: evenly spread, with the last."""
MOST_METRICS: Final = 40
_SIDES: Final = ("train_", "val_")


def curves(study: str, records: Sequence[TrialRecord], *, best: int | None, metric: str) -> dict[str, Any]:
    """Return the curves of trials by what they measure; training and validation of one thing stand together.

    Args:
        records: the trials, of which the first `MOST_CURVES` are drawn.
        best: the number of the best trial.
        metric: what is shown first.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records[:MOST_CURVES]:
        for name in sorted({name for metrics in record.curve.values() for name in metrics}):
            steps, values = _points(record.curve, name)
            line = {
                "label": f"trial {record.number}" + (" (training)" if name.startswith("train_") else ""),
                "steps": steps,
                "values": values,
                "dashed": name.startswith("train_"),
                "best": record.number == best,
                "number": record.number,
                "address": paths.of_trial(study, record.number),
            }
            if steps and (_group(name) in groups or len(groups) < MOST_METRICS):
                groups.setdefault(_group(name), []).append(line)
    return {"kind": "curves", "chosen": _group(metric), "groups": groups}


def _group(name: str) -> str:
    return next((name.removeprefix(side) for side in _SIDES if name.startswith(side)), name)


def _points(curve: Mapping[int, Mapping[str, float]], name: str) -> tuple[list[int], list[float]]:
    known = [(step, row[name]) for step, row in sorted(curve.items()) if math.isfinite(row.get(name, math.nan))]
    every = max(1, math.ceil(len(known) / MOST_POINTS))
    kept = known[::every] if not known or known[-1] in known[::every] else [*known[::every], known[-1]]
    return [step for step, _ in kept], [float(f"{value:.6g}") for _, value in kept]


def progress(
    spec: StudySpec, name: str, records: Sequence[TrialRecord], *, before: float | None = None
) -> dict[str, Any]:
    """Return the last value of each trial that has one, by number, and the best observed so far.

    `before` is the best value of the trials before those of `records`.
    """
    objective = spec.objectives[0]
    known = [
        (record, value) for record in records if (value := finite(final_metrics(record), objective.metric)) is not None
    ]
    # One that breaks a constraint is no best, as in the answer.
    gains = [
        gain(objective, value) if is_feasible(spec, final_metrics(record)) else -math.inf for record, value in known
    ]
    start = -math.inf if before is None else gain(objective, before)
    best = list(accumulate(gains, max, initial=start))[1:]
    return {
        "kind": "progress",
        "metric": objective.metric,
        "address": paths.of_study(name) + "/trials/",
        "numbers": [record.number for record, _ in known],
        "values": [float(f"{value:.6g}") for _, value in known],
        "stopped": [record.state == "stopped" for record, _ in known],
        "best": [None if value == -math.inf else float(f"{gain(objective, value):.6g}") for value in best],
    }
