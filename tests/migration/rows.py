"""Rows as each revision of the tables kept them: a study in the middle of its work, with a trial in every state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text

SPEC: Final[dict[str, Any]] = json.loads((Path(__file__).parent / "study_spec.json").read_text())
"""A study spec as release 0.1.0 stored it."""
STUDIES: Final = ("active", "paused", "stopped", "completed")
"""A study in each state, of the same name; the trials are those of the active one."""
RUN_BEFORE: Final = {"0001": 1, "0002": 1, "0003": 2, "0004": 2, "0005": 2, "0006": 2}
"""Priority of a trial that has run before, by revision."""
LEASE: Final = "11111111-1111-1111-1111-{:012d}"

_STUDY: Final = """
INSERT INTO study (name, spec, state, state_reason, finished_at, next_number, live_trials, generation)
VALUES (:state, CAST(:spec AS jsonb), :state, :reason, CASE WHEN :state IN ('stopped', 'completed') THEN now() END,
        :numbers, :live, 3)
"""
_TRIAL: Final = """
INSERT INTO trial (study_id, number, params, generator, predicted_mean, predicted_sd, state, priority, attempt,
                   lease_id, lease_worker, lease_seconds, lease_expires_at, retries, cancel_requested, metrics,
                   failure_kind, failure_message, epochs_done, gpu_seconds, peak_memory_bytes, checkpoint,
                   environment, started_at, finished_at)
SELECT study.id, :number, CAST(:params AS jsonb), :generator, 0.5, 0.25, :state, :priority, :attempt,
       CAST(:lease_id AS uuid), CASE WHEN :attempt > 0 THEN 'w1' END, CASE WHEN :attempt > 0 THEN 60 END,
       CASE WHEN :state = 'running' THEN now() + interval '1 h' END, :retries, :cancelled, CAST(:metrics AS jsonb),
       CAST(:failure_kind AS text), :failure_message, :epochs_done, :gpu_seconds, CAST(:peak AS bigint),
       CAST(:checkpoint AS text),
       '{"torch": "2.11"}', CASE WHEN :attempt > 0 THEN now() END,
       CASE WHEN :state IN ('completed', 'stopped', 'failed', 'withdrawn') THEN now() END
FROM study WHERE study.name = 'active'
"""
_MEASUREMENT: Final = """
INSERT INTO measurement (trial_id, attempt, step, metrics, wall_seconds, gpu_seconds)
SELECT id, :attempt, :step, CAST(:metrics AS jsonb), 2, 1 FROM trial WHERE number = :number
"""
_OTHERS: Final = (
    "INSERT INTO worker (name, host, pid, device, gpu_name, memory_bytes, study)"
    " VALUES ('w1', 'here', 7, 'cuda', 'A100', 85899345920, 'active')",
    "INSERT INTO api_token (name, hash, scopes) VALUES ('laptop', sha256('one'), '{admin}')",
    "INSERT INTO api_token (name, hash, scopes, revoked_at) VALUES ('old', sha256('two'), '{read}', now())",
    "INSERT INTO api_token (name, hash, scopes, kind, expires_at)"
    " VALUES ('browser', sha256('three'), '{read}', 'session', now() + interval '1 h')",
    "INSERT INTO event (study_id, kind, actor) SELECT id, 'study.created', 'anna' FROM study ORDER BY id",
    "INSERT INTO event (study_id, trial_id, kind, actor, detail)"
    " SELECT study_id, id, 'trial.suggested', 'optimizer', '{\"generator\": \"sobol\"}' FROM trial ORDER BY id",
)
_SINCE: Final = {
    "0002": ("UPDATE trial SET held = true WHERE number = 5",),
    "0003": (
        "UPDATE study SET guesses = '[{\"lr\": 0.01}, {\"lr\": 0.02}]' WHERE name = 'active'",
        "UPDATE trial SET predicted_feasibility = 0.75 WHERE number = 6",
        "UPDATE trial SET priority = 1, generator = 'enqueued' WHERE number = 7",
    ),
    "0004": (
        "INSERT INTO earlier_trial (study_id, place, source, params, metrics) SELECT id, 0, 'before',"
        ' \'{"lr": 0.1, "dropout": 0.2}\', \'{"val_top1": 0.5, "peak_memory_gib": 4}\''
        " FROM study WHERE name = 'active'",
    ),
    "0006": (
        "UPDATE trial SET replicate_of = 0, generator = 'finalists' WHERE number = 8",
        "UPDATE study SET live_trials = live_trials - 1, search_ended_at = NULL,"
        ' finalists = \'{"top": 3, "seeds": 2, "share": 0.25, "probability": 0.9}\' WHERE name = \'active\'',
    ),
}
"""What became possible with each revision."""

NOTHING: Final[dict[str, Any]] = {
    "generator": "sobol",
    "attempt": 0,
    "lease_id": None,
    "retries": 0,
    "cancelled": False,
    "metrics": None,
    "failure_kind": None,
    "failure_message": None,
    "epochs_done": 0,
    "gpu_seconds": 0.0,
    "peak": None,
    "checkpoint": None,
}
TRIALS: Final[list[dict[str, Any]]] = [
    {
        "state": "completed",
        "attempt": 2,
        "retries": 1,
        "metrics": {"val_top1": 0.75, "peak_memory_gib": 8},
        "epochs_done": 10,
        "gpu_seconds": 12.5,
        "peak": 2**33,
        "checkpoint": "/c/0.pt",
    },
    {"state": "stopped", "attempt": 1, "metrics": {"val_top1": 0.25}, "epochs_done": 3, "gpu_seconds": 3.0},
    {"state": "stopped", "attempt": 1, "metrics": {"val_top1": 0.5}, "epochs_done": 1, "cancelled": True},
    {"state": "failed", "attempt": 1, "failure_kind": "oom", "failure_message": "too large"},
    {"state": "running", "attempt": 1, "epochs_done": 2, "gpu_seconds": 2.0},
    {"state": "paused", "attempt": 1, "lease_id": None, "epochs_done": 3, "checkpoint": "/c/5.pt"},
    {"state": "suggested"},
    {"state": "suggested"},
    {"state": "suggested", "attempt": 1, "retries": 1, "epochs_done": 1, "checkpoint": "/c/8.pt"},
    {"state": "withdrawn"},
    {"state": "failed", "attempt": 4, "retries": 4, "failure_kind": "lost", "failure_message": "not heard of"},
]
"""By number. Where nothing else is said, a trial that was claimed keeps the id of its lease."""
CURVES: Final[dict[int, list[tuple[int, int, float]]]] = {
    0: [(1, 1, 0.125), (1, 2, 0.25), (2, 2, 0.5), (2, 10, 0.75)],
    1: [(1, 3, 0.25)],
    4: [(1, 1, 0.375), (1, 2, 0.5)],
    5: [(1, 3, 0.125)],
}
"""(attempt, step, value) of what was measured, by number."""


def revisions_with_rows() -> list[str]:
    """Return the revisions at which `fill` knows what rows look like."""
    return list(RUN_BEFORE)


def fill(connection: Connection, revision: str) -> None:
    """Fill the tables of `revision` as the release of that time would have."""
    for state in STUDIES:
        has_trials = state == "active"
        values = {
            "state": state,
            "spec": json.dumps({**SPEC, "name": state}),
            "reason": "three invalid trials" if state == "paused" else None,
            "numbers": len(TRIALS) if has_trials else 0,
            "live": len(TRIALS) - 1 if has_trials else 0,
        }
        connection.execute(text(_STUDY), values)
    for number, given in enumerate(TRIALS):
        row = {**NOTHING, **given}
        has_run = row["attempt"] > 0 and row["state"] in ("suggested", "paused")
        row["priority"] = RUN_BEFORE[revision] if has_run else 0
        row["params"] = json.dumps(params_of(number))
        row["metrics"] = None if row["metrics"] is None else json.dumps(row["metrics"])
        if row["attempt"] > 0 and "lease_id" not in given:
            row["lease_id"] = LEASE.format(number)
        connection.execute(text(_TRIAL), {**row, "number": number})
    for number, curve in CURVES.items():
        for attempt, step, value in curve:
            metrics = json.dumps({"val_top1": value})
            at = {"number": number, "attempt": attempt, "step": step, "metrics": metrics}
            connection.execute(text(_MEASUREMENT), at)
    for statement in _OTHERS:
        connection.execute(text(statement))
    for since, statements in _SINCE.items():
        if since <= revision:
            for statement in statements:
                connection.execute(text(statement))


def params_of(number: int) -> dict[str, float]:
    """Return the parameters of a trial."""
    return {"lr": 0.001 * (number + 1), "dropout": 0.05}
