"""Lines about progress: what they say, and how seldom they come."""

from __future__ import annotations

import math
from typing import Any

import pytest

from workers.lease.log_lines import LINE_SECONDS, ProgressLines, logged_progress, progress_of
from workers.process.messages import Preparation
from workers.training.progress import TrainingProgress

FIELDS: dict[str, Any] = {
    "stage": "training",
    "epoch": 3,
    "epochs": 40,
    "batch": 120,
    "batches": 300,
    "loss": 1.23456,
    "learning_rate": 0.0125,
    "clips_per_second": 85.04,
    "waiting": 0.124,
    "memory_bytes": int(5.4 * 2**30),
    "seconds_left": 4320.0,
}
PROGRESS = progress_of(TrainingProgress(**FIELDS))


def test_a_line_says_where_an_epoch_is() -> None:
    assert logged_progress(PROGRESS) == (
        "epoch 3/40, batch 120/300: loss 1.2346, lr 0.0125, 85 clips/s, 12 % waiting for data, 5.4 GiB, 72 min left"
    )
    validation = TrainingProgress(**{**FIELDS, "stage": "validation", "batch": 1, "batches": 9})
    assert logged_progress(progress_of(validation)).startswith("epoch 3/40, validation batch 1/9: loss 1.2346")


@pytest.mark.parametrize(
    ("done", "total", "left", "line"),
    [
        (0, 200, None, "data set: decoding [--------------------] 0/200 videos"),
        (50, 200, 180.0, "data set: decoding [#####---------------] 50/200 videos, 3 min left"),
        (200, 200, 0.0, "data set: decoding [####################] 200/200 videos, 0 s left"),
        (0, 0, None, "data set: decoding [####################] 0/0 videos"),
    ],
)
def test_a_line_shows_a_bar_of_the_preparation(done: int, total: int, left: float | None, line: str) -> None:
    seen = Preparation(stage="decoding", done=done, total=total, seconds_left=left)
    assert logged_progress(progress_of(seen)) == line


@pytest.mark.parametrize("field", ["loss", "learning_rate", "clips_per_second", "waiting", "seconds_left"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_left_out_and_costs_no_report(field: str, value: float) -> None:
    found = progress_of(TrainingProgress(**{**FIELDS, field: value}))
    assert found == PROGRESS.model_copy(update={field: None})


def test_a_line_comes_once_in_its_time_and_not_soon_after_an_epoch() -> None:
    lines = ProgressLines(100.0)
    soon = lines.line(PROGRESS, 100.0 + LINE_SECONDS - 1)
    unknown = lines.line(None, 100.0 + LINE_SECONDS)
    due = lines.line(PROGRESS, 100.0 + LINE_SECONDS)
    again = lines.line(PROGRESS, 100.0 + 2 * LINE_SECONDS - 1)
    lines.epoch_over(100.0 + 2 * LINE_SECONDS - 1)
    after_epoch = lines.line(PROGRESS, 100.0 + 3 * LINE_SECONDS - 2)
    assert (soon, unknown, again, after_epoch) == (None, None, None, None)
    assert due == logged_progress(PROGRESS)
