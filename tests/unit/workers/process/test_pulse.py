"""Signs of life: their counts, and that they begin and end with their block."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace

from workers.process.messages import EVENTS, Alive, Event, Preparation
from workers.process.pipes import EventPipe
from workers.process.pulse import Pulse
from workers.training.progress import TrainingProgress

from ..tiny import PROGRESS

PATIENCE_SECONDS = 30.0


class FakeTraining:
    """Stands where a test puts it."""

    steps = 7
    progress: TrainingProgress | None = None


class Events(EventPipe):
    """Keeps what is sent; raises what the pipe of an ended worker would."""

    def __init__(self) -> None:
        self.sent: queue.Queue[Event] = queue.Queue()

    def send(self, event: Event) -> None:
        self.sent.put(event)

    def next_with(self, *, is_training: bool, steps: int) -> None:
        """Wait for a sign of life with this count."""
        self.next_like(is_training=is_training, steps=steps)

    def next_like(self, *, is_training: bool, steps: int) -> Alive:
        """Wait for a sign of life with this count and return it, as the worker reads it."""
        while True:
            alive = EVENTS.validate_json(self.sent.get(timeout=PATIENCE_SECONDS).model_dump_json())
            if isinstance(alive, Alive) and (alive.is_training, alive.steps) == (is_training, steps):
                return alive


def test_it_counts_what_is_prepared_and_then_what_is_trained() -> None:
    events, training = Events(), FakeTraining()
    with Pulse(events, seconds=0.001) as pulse:
        events.next_with(is_training=False, steps=0)
        for _ in range(3):
            pulse.prepared("decoding", 1, 3)
        events.next_with(is_training=False, steps=3)
        pulse.trains(training)
        events.next_with(is_training=True, steps=7)
        training.steps = 8
        events.next_with(is_training=True, steps=8)


def test_it_shows_what_the_training_shows() -> None:
    events, training = Events(), FakeTraining()
    with Pulse(events, seconds=0.001) as pulse:
        pulse.trains(training)
        assert events.next_like(is_training=True, steps=7).progress is None
        training.progress, training.steps = replace(PROGRESS, stage="validation"), 8
        shown = events.next_like(is_training=True, steps=8).progress
    assert shown == replace(PROGRESS, stage="validation")


def test_the_time_left_of_a_preparation_follows_from_what_was_done_in_this_process() -> None:
    now = 100.0
    events = Events()
    pulse = Pulse(events, seconds=0.001, clock=lambda: now)
    pulse.prepared("decoding", 20, 60)  # 20 were done by an earlier process
    first = pulse._alive().progress
    now = 130.0
    pulse.prepared("decoding", 30, 60)  # 10 in 30 s: 3 s each
    second = pulse._alive().progress
    pulse.prepared("packing", 1, 60)
    third = pulse._alive().progress
    assert first == Preparation(stage="decoding", done=20, total=60, seconds_left=None)
    assert second == Preparation(stage="decoding", done=30, total=60, seconds_left=90.0)
    assert third == Preparation(stage="packing", done=1, total=60, seconds_left=None)


def test_nothing_is_sent_after_the_block() -> None:
    """The last event of a job is the last."""
    events = Events()
    with Pulse(events, seconds=0.001):
        events.next_with(is_training=False, steps=0)
    assert "pulse" not in {thread.name for thread in threading.enumerate()}
