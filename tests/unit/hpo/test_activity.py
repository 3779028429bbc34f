"""What a trial does, in words."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.activity import duration, place, progress_line, share, stored_progress, with_devices
from hpo.protocol import Progress

TRAINING: dict[str, Any] = {"stage": "training", "done": 120, "total": 300, "epoch": 3, "epochs": 40}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (89.0, "89 s"),
        (90.0, "2 min"),
        (5300.0, "88 min"),
        (5400.0, "1 h 30 min"),
        (90000.0, "25 h 0 min"),
        (172_740.0, "47 h 59 min"),
        (172_800.0, "2 days"),
    ],
)
def test_a_time_is_said_as_a_person_says_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_is_not_known_is_left_out() -> None:
    assert progress_line(Progress(**TRAINING)) == "epoch 3/40, batch 120/300"
    assert progress_line(Progress(**TRAINING, loss=0.5, seconds_left=30)) == (
        "epoch 3/40, batch 120/300: loss 0.5000, 30 s left"
    )


def test_no_number_of_a_worker_fills_the_screen() -> None:
    largest: dict[str, Any] = {
        "loss": -1.7e308,
        "learning_rate": 1.7e308,
        "clips_per_second": 1.7e308,
        "memory_bytes": 2**63 - 1,
    }
    assert len(progress_line(Progress(**TRAINING, **largest, seconds_left=1))) < 120


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("scan", "reading the videos"),
        ("prepare", "decoding"),
        ("flow", "computing optical flow"),
        ("wait", "waiting for another process"),
        ("of a later release", "of a later release"),
    ],
)
def test_the_preparation_is_named(step: str, words: str) -> None:
    progress = Progress(stage="preparing", step=step, done=120, total=480, seconds_left=180)
    assert place(progress) == f"data set: {words} 120/480 videos"
    assert progress_line(progress) == f"data set: {words} 120/480 videos, 3 min left"
    assert share(progress) == 0.25


def test_progress_of_another_release_is_not_shown() -> None:
    known = Progress(**TRAINING)
    assert stored_progress(known.model_dump(exclude_none=True)) == known
    assert stored_progress({**TRAINING, "colour": "blue"}) is None
    assert stored_progress(None) is None


@pytest.mark.parametrize(
    ("gpus", "nodes", "words"),
    [
        (1, 1, ""),
        (2, 1, " with 2 GPUs"),
        (1, 2, " on each of 2 machines"),
        (4, 2, " with 4 GPUs on each of 2 machines"),
    ],
)
def test_what_a_worker_must_have_is_said(gpus: int, nodes: int, words: str) -> None:
    assert with_devices(gpus, nodes) == words
