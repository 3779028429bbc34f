"""Progress within an epoch: its numbers against a clock that is set by hand, and what a real trainer shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from data import Dataset
from workers.training.epoch import EpochResult
from workers.training.progress import READ_SECONDS, ProgressMeter, TrainingProgress
from workers.training.recipe import learning_rate
from workers.training.reproducibility import Runtime
from workers.training.trainer import Trainer

from ..tiny import tiny_config

MEASURED: dict[str, Any] = {
    "batches": 10,
    "clips_per_batch": 8,
    "loss": 1.5,
    "learning_rate": 0.1,
    "memory_bytes": 1000,
}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def _slow(clock: Clock, count: int, seconds: float) -> Iterator[int]:
    """Yield numbers, each after `seconds`."""
    for number in range(count):
        clock.now += seconds
        yield number


def test_the_numbers_of_a_resumed_epoch_are_those_of_this_process() -> None:
    clock = Clock()
    meter = ProgressMeter(epochs=5, clock=clock)
    done = [EpochResult(epoch=1, metrics={"validation_seconds": 7.0}, seconds=40.0)]
    taken = 0
    for _ in meter.start_epoch(_slow(clock, 4, 1.0), first=2):
        clock.now += 3.0  # of training, after 1 s of waiting
        taken += 1
    meter.measure(batch=2 + taken, **MEASURED, curve=done)
    # 4 batches in 16 s: 4 s each; 4 more, the validation, and three epochs like the last.
    assert meter.latest == TrainingProgress(
        stage="training",
        epoch=2,
        epochs=5,
        batch=6,
        batches=10,
        loss=1.5,
        learning_rate=0.1,
        clips_per_second=2.0,
        waiting=0.25,
        memory_bytes=1000,
        seconds_left=4 * 4.0 + 7.0 + 3 * 40.0,
    )


def test_the_first_epoch_is_measured_by_its_batches_alone() -> None:
    clock = Clock()
    meter = ProgressMeter(epochs=3, clock=clock)
    next(meter.start_epoch(iter([0]), first=0))
    clock.now += 2.0
    meter.measure(batch=1, **MEASURED, curve=[])
    assert meter.latest is not None
    assert meter.latest.seconds_left == 9 * 2.0 + 2 * 10 * 2.0
    assert meter.latest.waiting == 0.0


def test_it_is_measured_at_once_and_then_after_a_second() -> None:
    clock = Clock()
    meter = ProgressMeter(epochs=1, clock=clock)
    meter.start_epoch(iter(()), first=0)
    due = [meter.is_due()]
    meter.measure(batch=1, **MEASURED, curve=[])
    for seconds in (0.5, 0.4, 0.1):
        clock.now += seconds
        due.append(meter.is_due())
    assert due == [True, False, False, True]


def test_the_loss_may_be_read_some_time_after_it_was_read() -> None:
    clock = Clock()
    meter = ProgressMeter(epochs=1, clock=clock)
    meter.start_epoch(iter(()), first=0)
    clock.now += READ_SECONDS - 1
    before = meter.may_read()
    clock.now += 1
    late = meter.may_read()
    meter.is_due()  # it was read
    assert (before, late, meter.may_read()) == (False, True, False)


def test_validation_is_shown_with_what_the_training_measured() -> None:
    clock = Clock()
    meter = ProgressMeter(epochs=1, clock=clock)
    meter.validate(batch=0, batches=4)
    untrained: TrainingProgress | None = meter.latest
    assert untrained is None
    meter.start_epoch(iter(()), first=0)
    meter.measure(batch=10, **MEASURED, curve=[])
    trained: TrainingProgress | None = meter.latest
    assert trained is not None
    shown: list[TrainingProgress | None] = []
    for batch in range(5):
        meter.validate(batch=batch, batches=4)
        shown.append(meter.latest)
        clock.now += 0.6
    # At once, then each second; between them what was shown before stays.
    assert shown == [replace(trained, stage="validation", batch=batch, batches=4) for batch in (0, 0, 2, 2, 4)]


def test_a_trainer_shows_every_epoch_and_its_validation(
    dataset: Dataset, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.training.progress.SECONDS_BETWEEN", 0.0)
    config = tiny_config(batch_size=4)
    trainer = Trainer(config, epochs=2, dataset=dataset, runtime=runtime)
    assert trainer.progress is None
    seen: list[TrainingProgress | None] = []

    def interrupted() -> bool:
        seen.append(trainer.progress)
        return False

    trainer.run(interrupted=interrupted, epoch_done=lambda _: seen.append(trainer.progress))
    first, *later = seen
    assert first is None
    shown = [(p.stage, p.epoch, p.batch, p.batches) for p in later if p is not None]
    assert shown == [
        ("training", 1, 1, 3),
        ("training", 1, 2, 3),
        ("validation", 1, 0, 1),
        ("validation", 1, 0, 1),
        ("training", 2, 1, 3),
        ("training", 2, 2, 3),
        ("validation", 2, 0, 1),
    ]
    last = later[-1]
    assert last is not None
    assert last.loss == pytest.approx(trainer.curve[-1].metrics["train_loss"])
    assert last.learning_rate == learning_rate(config, step=5, total_steps=6)
    assert last.clips_per_second > 0
    assert last.memory_bytes > 0
    assert 0 <= last.waiting <= 1
