"""What must be true of a database after chaos, by the logs of the workers that used it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from hpo.store import consistency

Entry = dict[str, Any]


def read(folder: Path) -> list[list[Entry]]:
    """Return the log of every worker; a line that a kill has cut off was not acknowledged to anybody."""
    found = []
    for path in sorted(folder.glob("*.log")):
        lines = path.read_text().split("\n")[:-1]
        found.append([json.loads(line) for line in lines])
    return found


def violations(connection: Connection, logs: Sequence[Sequence[Entry]]) -> list[str]:
    """Return a sentence for each promise that was broken."""
    entries = [entry for log in logs for entry in log]
    return [
        *_measurements(connection, entries),
        *_results(connection, entries),
        *_claims(connection, logs),
        *_fence(entries),
        *consistency.problems(connection),
    ]


def _measurements(connection: Connection, entries: Sequence[Entry]) -> Iterator[str]:
    rows = connection.execute(
        text("SELECT trial_id, attempt, step, (metrics ->> 'val_top1')::float8 AS value FROM measurement")
    )
    stored = {(row.trial_id, row.attempt, row.step): row.value for row in rows}
    sent = {(e["trial"], e["attempt"], e["step"]): e["value"] for e in entries if e["what"] == "reporting"}
    for entry in entries:
        place = (entry.get("trial"), entry.get("attempt"), entry.get("step"))
        if entry["what"] == "reported" and stored.get(place) != entry["value"]:
            yield f"the acknowledged report {place} of {entry['value']} is {stored.get(place)}"
    for place, value in stored.items():
        if sent.get(place) != value:
            yield f"nobody has sent the measurement {place} of {value}"


def _results(connection: Connection, entries: Sequence[Entry]) -> Iterator[str]:
    rows = connection.execute(text("SELECT id, state, attempt, (metrics ->> 'val_top1')::float8 AS value FROM trial"))
    stored = {row.id: (row.state, row.attempt, row.value) for row in rows}
    accepted = defaultdict(set)
    for entry in entries:
        if entry["what"] == "finished":
            accepted[entry["trial"]].add((entry["attempt"], entry["value"]))
    for trial, results in accepted.items():
        if len(results) > 1:
            yield f"two results of trial {trial} were accepted"
        for attempt, value in results:
            if stored.get(trial) != ("completed", attempt, value):
                yield f"the accepted result {value} of trial {trial}, attempt {attempt}, is {stored.get(trial)}"


def _claims(connection: Connection, logs: Sequence[Sequence[Entry]]) -> Iterator[str]:
    rows = connection.execute(text("SELECT trial_id, attempt, lease_id::text AS lease FROM attempt")).all()
    given = {(row.trial_id, row.attempt): row.lease for row in rows}
    known: set[tuple[str, int, int]] = set()
    excused: set[str] = set()
    asked: set[str] = set()
    for log in logs:
        asked |= {entry["lease"] for entry in log if entry["what"] == "claiming"}
        known |= {(entry["lease"], entry["trial"], entry["attempt"]) for entry in log if entry["what"] == "claimed"}
        # It was told that the lease is over, or has not had an answer when it was killed.
        excused |= {entry["lease"] for entry in log if entry["what"] == "stale"}
        excused |= {log[-1]["lease"]} if log else set()
    for lease, trial, attempt in known:
        if given.get((trial, attempt)) != lease:
            yield f"attempt {attempt} of trial {trial} was given to two leases"
    for (trial, attempt), lease in given.items():
        if lease not in asked:
            yield f"nobody has asked for attempt {attempt} of trial {trial}"
        elif (lease, trial, attempt) not in known and lease not in excused:
            yield f"attempt {attempt} of trial {trial} is a ghost: its worker does not know of it"


def _fence(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what was accepted although another worker knew before it was sent that the trial is its own."""
    claimed = defaultdict(list)
    sent: dict[tuple[Any, ...], float] = {}
    for entry in entries:
        place = (entry["lease"], entry.get("step"))
        if entry["what"] == "claimed":
            claimed[entry["trial"]].append((entry["attempt"], entry["at"]))
        elif entry["what"] in ("reporting", "finishing"):
            sent[place] = entry["at"]
    for entry in entries:
        if entry["what"] in ("reported", "finished"):
            began = sent[entry["lease"], entry.get("step")]
            if any(attempt > entry["attempt"] and at < began for attempt, at in claimed[entry["trial"]]):
                yield f"attempt {entry['attempt']} of trial {entry['trial']} was {entry['what']} after a later claim"
