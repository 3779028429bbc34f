"""The page of the workers: what each does, how far its trial is, and which get no trials, why, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from fastapi.responses import HTMLResponse

from hpo.activity import FORGOTTEN_SECONDS, duration, measured, place, stored_progress, time_left
from hpo.protocol import Progress
from hpo.store.optimizers import OptimizerRow
from hpo.store.waiting import MissingFiles
from hpo.store.workers import ALIVE_SECONDS, WorkerRow

from . import paths
from .frame import Viewer, page

MOST_SILENT: Final = 100
_ORDER: Final = ("quarantine", "trains", "waits", "silent")
_SHOWN: Final = {"quarantine": "in quarantine", "trains": "trains", "waits": "waits", "silent": "silent"}
_COUNTED: Final = {"quarantine": "in quarantine", "trains": "training", "waits": "waiting", "silent": "silent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """How far the trial of a worker is."""

    where: str
    details: str
    done: float
    total: float

    @classmethod
    def of(cls, progress: Progress, age_seconds: float) -> Doing:
        """Describe progress that was said `age_seconds` ago."""
        old = f" ({duration(age_seconds)} ago)" if age_seconds > ALIVE_SECONDS else ""
        done, total = _bar(progress)
        details = ", ".join(filter(None, (measured(progress), time_left(progress))))
        return cls(where=f"{place(progress)}{old}", details=details, done=done, total=total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A worker as the page shows it."""

    row: WorkerRow
    state: str
    label: str
    about: str
    trial: str | None
    """The address of its trial."""
    doing: Doing | None
    missing: Sequence[MissingFiles]


def workers_page(
    rows: Sequence[WorkerRow],
    missing: Mapping[str, Sequence[MissingFiles]],
    *,
    now: datetime,
    viewer: Viewer,
    degraded: Mapping[str, str] = MappingProxyType({}),
    optimizers: Sequence[OptimizerRow] = (),
) -> HTMLResponse:
    """Return the page.

    `missing` are the files that workers have not found, by their names; `degraded` says by study what it lacks, such as
    an optimizer. `optimizers` are those that live.
    """
    kept = [row for row in rows if row.seconds_since_seen < FORGOTTEN_SECONDS or row.quarantined_at is not None]
    shown = [_shown(row, missing.get(row.name, ()), now) for row in kept]
    shown.sort(key=lambda one: (_ORDER.index(one.state), one.row.host, one.row.name))
    silent = [one for one in shown if one.state == "silent"]
    return page(
        "workers.html",
        viewer=viewer,
        summary=summary(rows) or "none was heard of yet",
        hosts=[row for _, row in sorted({r.host: r for r in kept if r.host_quarantined_at is not None}.items())],
        workers=[one for one in shown if one.state != "silent"],
        silent=silent[:MOST_SILENT],
        silent_count=len(silent),
        forgotten=len(rows) - len(kept),
        degraded=degraded,
        optimizers=optimizers,
    )


def summary(rows: Sequence[WorkerRow]) -> str:
    """Return how many workers do what, such as `3 training, 1 waiting`; an empty string without any."""
    kept = [row for row in rows if row.seconds_since_seen < FORGOTTEN_SECONDS or row.quarantined_at is not None]
    counts = Counter(state_of(row) for row in kept)
    return ", ".join(f"{counts[state]} {_COUNTED[state]}" for state in _ORDER if counts[state])


def state_of(row: WorkerRow) -> str:
    """Return what a worker does, one of `_ORDER`."""
    if row.quarantined_at is not None or (row.host_quarantined_at is not None and row.trial_id is None):
        return "quarantine"
    if row.seconds_since_seen > ALIVE_SECONDS:
        return "silent"
    return "waits" if row.trial_id is None else "trains"


def _shown(row: WorkerRow, missing: Sequence[MissingFiles], now: datetime) -> Shown:
    state, progress = state_of(row), stored_progress(row.progress)
    age = (now - row.progress_at).total_seconds() if row.progress_at is not None else 0.0
    has_trial = row.trial_study is not None and row.trial_number is not None
    return Shown(
        row=row,
        state=state,
        label=_SHOWN[state],
        about=_about(row),
        trial=paths.of_trial(row.trial_study or "", row.trial_number or 0) if has_trial else None,
        doing=None if progress is None else Doing.of(progress, age),
        missing=missing,
    )


def _about(row: WorkerRow) -> str:
    each = " each" if row.gpus > 1 else ""
    memory = "" if row.memory_bytes is None else f", {row.memory_bytes / 2**30:.0f} GiB{each}"
    device = f"{row.gpu_name} ({row.device})" if row.gpu_name else row.device
    others = "" if row.nodes == 1 else f" and {row.nodes - 1} more"
    return f"{device}{memory} on {row.host}{others}, process {row.pid}" + (f", {row.version}" if row.version else "")


def _bar(progress: Progress) -> tuple[float, float]:
    """Return how much is done, of how much: of this step of the preparation, or of all epochs of the trial."""
    done, total = float(progress.done), float(progress.total)
    if progress.stage != "preparing" and progress.epoch is not None and progress.epochs is not None:
        share = min(1.0, done / total) if total and progress.stage == "training" else 1.0
        done, total = progress.epoch - 1 + share, float(progress.epochs)
    return done, max(total, 1.0)
