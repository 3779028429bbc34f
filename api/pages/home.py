"""The first page: all studies, what each has found, used and needs, and what to do where there is nothing yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from fastapi.responses import HTMLResponse

from hpo.activity import with_devices
from hpo.answer import Answer
from hpo.results.outcome import gain
from hpo.service.time_left import seconds_left
from hpo.store.answers import Shown
from hpo.store.studies import StudyRow
from hpo.store.workers import ALIVE_SECONDS, WorkerRow
from hpo.trial import StudyState

from . import paths
from .frame import Viewer, page
from .workers import summary

MOST_STUDIES: Final = 200
"""The latest are shown; the others are counted."""
_WIDTH, _HEIGHT = 100.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much of what a study may use is used."""

    trials_over: int
    trials: int | None
    gpu_hours: float
    gpu_hours_limit: float | None
    gpu_hours_saved: float
    seconds_left: float | None

    @classmethod
    def of(cls, study: StudyRow) -> Budget:
        """Add up what the trials of a study have used; trainings of finalists count as trials."""
        limit, hours = study.spec.budget.trials, study.gpu_seconds_limit
        return cls(
            trials_over=study.trials_over,
            trials=None if limit is None else limit + study.replicates,
            gpu_hours=study.gpu_seconds_spent / 3600,
            gpu_hours_limit=None if hours is None else hours / 3600,
            gpu_hours_saved=study.gpu_seconds_saved / 3600,
            seconds_left=seconds_left(study),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A study in the list."""

    study: StudyRow
    address: str
    budget: Budget
    shown: Shown
    spark: str
    """The best observed value by trial, as a path in a box of 100 by 30."""
    warning: str | None


def latest_of(studies: Sequence[StudyRow]) -> list[StudyRow]:
    """Return the studies that are shown, the latest first."""
    return sorted(studies, key=lambda study: study.created_at, reverse=True)[:MOST_STUDIES]


def home_page(
    studies: Sequence[StudyRow],
    answers: Mapping[int, Shown],
    workers: Sequence[WorkerRow],
    *,
    viewer: Viewer,
    unreadable: Sequence[str] = (),
) -> HTMLResponse:
    """Return the page.

    `answers` is what is known of their answers, by their ids; `unreadable` are sentences about studies that this
    release cannot read.
    """
    latest = latest_of(studies)
    cards = [_card(study, answers[study.id], workers) for study in latest]
    at_work = (StudyState.ACTIVE, StudyState.PAUSED)
    return page(
        "home.html",
        viewer=viewer,
        open_studies=[card for card in cards if card.study.state in at_work],
        ended_studies=[card for card in cards if card.study.state not in at_work],
        left_out=len(studies) - len(latest),
        unreadable=unreadable,
        workers_summary=summary(workers),
        has_worker=any(row.seconds_since_seen <= ALIVE_SECONDS for row in workers),
    )


def without_worker(study: StudyRow, workers: Sequence[WorkerRow]) -> bool:
    """Return whether a study is active and no live worker would take its trials."""
    takers = (row for row in workers if row.takes(study.spec) and row.seconds_since_seen <= ALIVE_SECONDS)
    return study.state is StudyState.ACTIVE and next(takers, None) is None


def _card(study: StudyRow, shown: Shown, workers: Sequence[WorkerRow]) -> Card:
    devices = with_devices(study.spec.gpus, study.spec.nodes)
    no_worker = f"no worker{devices} is connected" if without_worker(study, workers) else None
    return Card(
        study=study,
        address=paths.of_study(study.name),
        budget=Budget.of(study),
        shown=shown,
        spark="" if shown.answer is None else sparkline(best_so_far(study, shown.answer)),
        warning=study.degraded or no_worker,
    )


def best_so_far(study: StudyRow, answer: Answer) -> list[float]:
    """Return the best observed value after each configuration with a result, in the order of their trials."""
    objective = study.spec.objectives[0]
    in_order = sorted(answer.candidates, key=lambda candidate: candidate.trials[0])
    gains = accumulate((gain(objective, candidate.first.observed) for candidate in in_order), max)
    return [gain(objective, value) for value in gains]


def sparkline(values: Sequence[float]) -> str:
    """Return values as a path in a box of 100 by 30, the greatest at the top; an empty string for fewer than two."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    points = [
        (place / (len(values) - 1), (value - low) / (high - low) if high > low else 0.5)
        for place, value in enumerate(values)
    ]
    # Where many values share a point of the picture, one of them is drawn.
    kept = [*points[:: max(1, len(points) // 200)], points[-1]]
    return "M" + "L".join(f"{_WIDTH * x:.1f} {_HEIGHT * (1 - y):.1f}" for x, y in kept)
