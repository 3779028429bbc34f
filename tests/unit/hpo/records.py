"""Specs and records for the tests of early stopping, the optimizer and the Optuna view."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hpo.spec import StudySpec, parse_spec
from hpo.trial import Metrics, Params, TrialRecord, TrialState

PARAMS: Params = {"lr": 0.01, "weight_decay": 1e-4, "model": "r2plus1d_18"}
MOMENT = datetime(2026, 1, 1, 12, tzinfo=UTC)

_BASE: dict[str, Any] = {
    "name": "study",
    "objectives": [{"metric": "val_top1"}],
    "task": {"dataset": {"root": "/data/ucf101"}, "epochs": 9},
    "space": {
        "lr": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
        "weight_decay": {"type": "float", "low": 1e-6, "high": 5e-3, "log": True},
        "model": {"type": "categorical", "choices": ["slowfast_r50_4x16", "r2plus1d_18"]},
        "model.alpha": {"type": "ordinal", "choices": [4, 8], "when": {"model": ["slowfast_r50_4x16"]}},
    },
    "budget": {"trials": 60},
}


def spec_with(**sections: Any) -> StudySpec:
    """Return a small valid spec, whole sections replaced; `epochs` replaces the length of a trial."""
    raw = {**_BASE, **sections}
    if "epochs" in raw:
        raw["task"] = {**_BASE["task"], "epochs": raw.pop("epochs")}
    return parse_spec(raw)


def record_of(
    id: int,
    state: TrialState = TrialState.RUNNING,
    *,
    values: list[float] | None = None,
    metrics: Metrics | None = None,
    **fields: Any,
) -> TrialRecord:
    """Return a record whose curve of val_top1 is `values`, from step 1."""
    curve = {step: {"val_top1": value} for step, value in enumerate(values or [], start=1)}
    given: dict[str, Any] = {
        "number": id,
        "params": PARAMS,
        "curve": curve,
        "epochs_done": len(curve),
        "created_at": MOMENT,
        "started_at": None if state is TrialState.SUGGESTED else MOMENT,
        "finished_at": MOMENT if state.is_terminal else None,
    }
    return TrialRecord(id=id, state=state, metrics=metrics, **{**given, **fields})
