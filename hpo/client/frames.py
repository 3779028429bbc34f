"""Trials and curves as tables of pandas. pandas is imported here alone, when a table is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .replies import Curves, TrialSummary

if TYPE_CHECKING:
    import pandas as pd


def trials_dataframe(trials: Iterable[TrialSummary], spec: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per trial, with the columns that Optuna's `Study.trials_dataframe` has, and some of ours.

    Columns are `number`, `value` (`values_METRIC` for each of several objectives), `datetime_start`,
    `datetime_complete`, `duration`, `params_NAME` and `state`; after them `metrics_NAME` for the final values of all
    metrics, `attempt`, `epochs_done`, `gpu_seconds`, `generator`, `failure_kind` and `worker`. What a trial does not
    have is missing (NaN, NaT or None). States are ours: `completed`, `stopped`, `failed` and so on.

    Args:
        spec: of the study, for its objectives and the order of its parameters.
    """
    import pandas as pd

    objectives = [objective["metric"] for objective in spec["objectives"]]
    names = {metric: "value" if len(objectives) == 1 else f"values_{metric}" for metric in objectives}
    rows = [_row(trial, names) for trial in trials]
    found = {column: None for row in rows for column in row}
    params = [f"params_{name}" for name in spec["space"]]
    metrics = sorted(column for column in found if column.startswith("metrics_"))
    columns = ["number", *names.values(), "datetime_start", "datetime_complete", "duration", *params, "state", *metrics]
    table = pd.DataFrame(rows, columns=[*columns, *_FURTHER])
    for column in ("datetime_start", "datetime_complete"):
        table[column] = pd.to_datetime(table[column], utc=True, format="ISO8601")
    table["duration"] = table["datetime_complete"] - table["datetime_start"]
    for column in names.values():
        table[column] = table[column].astype("float64")
    return table


_FURTHER = ("attempt", "epochs_done", "gpu_seconds", "generator", "failure_kind", "worker")


def _row(trial: TrialSummary, names: Mapping[str, str]) -> dict[str, Any]:
    metrics = trial["metrics"] or {}
    return {
        "number": trial["number"],
        **{column: metrics.get(metric) for metric, column in names.items()},
        "datetime_start": trial["started_at"],
        "datetime_complete": trial["finished_at"],
        **{f"params_{name}": value for name, value in trial["params"].items()},
        "state": trial["state"],
        **{f"metrics_{name}": value for name, value in metrics.items()},
        **{name: trial[name] for name in _FURTHER},  # type: ignore[literal-required]  # each is a key
    }


def curves_dataframe(curves: Curves) -> pd.DataFrame:
    """Return one row per trial and step: `number`, `state`, `step`, and the metric under its own name."""
    import pandas as pd

    rows = [
        (curve["number"], curve["state"], step, value)
        for curve in curves["curves"]
        for step, value in zip(curve["steps"], curve["values"], strict=True)
    ]
    return pd.DataFrame(rows, columns=["number", "state", "step", curves["metric"]])
