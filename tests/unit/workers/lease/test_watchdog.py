"""When a training process is taken to hang, from signs of life at times that the test sets."""

from __future__ import annotations

import pytest

from workers.lease.watchdog import Patience, Watchdog
from workers.process.messages import Alive

PATIENCE = Patience(starting_seconds=300, silent_seconds=50, step_seconds=100, longest_steps=20, preparing_seconds=1000)
SECOND = 1.0


class Watched:
    """A watchdog whose worker runs all the time, second by second."""

    def __init__(self, patience: Patience = PATIENCE) -> None:
        self.now = 0.0
        self.dog = Watchdog(patience, self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass in which nothing is heard."""
        end = self.now + seconds
        while self.now < end:
            self.now += SECOND
            self.dog.passed(self.now)

    def live(self, seconds: float, *, steps: int, is_training: bool = True) -> None:
        """Let time pass with a sign of life in every second, all with the same count."""
        for _ in range(round(seconds)):
            self.wait(SECOND)
            self.dog.heard(Alive(is_training=is_training, steps=steps))


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_process_has_time_to_start_and_less_between_two_signs_of_life(watched: Watched) -> None:
    watched.wait(300)
    assert watched.dog.problem() is None
    watched.wait(1)
    assert watched.dog.problem() == "the training process gave no sign of life for 301 s"
    watched.live(1, steps=1)
    watched.wait(50)
    assert watched.dog.problem() is None
    watched.wait(1)
    assert watched.dog.problem() == "the training process gave no sign of life for 51 s"


def test_a_process_has_started_with_its_first_message_of_any_kind(watched: Watched) -> None:
    """A short first epoch is over before the first sign of life."""
    watched.dog.heard()
    watched.wait(50)
    assert watched.dog.problem() is None
    watched.wait(1)
    assert watched.dog.problem() == "the training process gave no sign of life for 51 s"


def test_any_message_is_a_sign_of_life(watched: Watched) -> None:
    watched.live(1, steps=1)
    for _ in range(2):
        watched.wait(49)
        watched.dog.heard()
    assert watched.dog.problem() is None


def test_a_main_thread_that_stands_still_is_noticed_although_the_process_lives(watched: Watched) -> None:
    watched.live(1, steps=1)
    watched.live(100, steps=1)
    assert watched.dog.problem() is None
    watched.live(1, steps=1)
    assert watched.dog.problem() == "no batch was trained for 101 s, although the training process lives"


@pytest.mark.parametrize(("longest", "limit"), [(3, 100), (30, 600)])
def test_a_step_may_last_twenty_times_as_long_as_the_longest(watched: Watched, longest: int, limit: int) -> None:
    watched.live(1, steps=0)
    watched.live(longest - 1, steps=0)
    watched.live(1, steps=1)  # it has lasted `longest` seconds
    watched.live(limit, steps=1)
    assert watched.dog.problem() is None
    watched.live(1, steps=1)
    assert watched.dog.problem() is not None


def test_what_the_preparation_took_does_not_lengthen_a_step(watched: Watched) -> None:
    watched.live(500, steps=7, is_training=False)
    assert watched.dog.problem() is None
    watched.live(1, steps=0)
    watched.live(101, steps=0)
    assert watched.dog.problem() is not None


def test_a_preparation_has_a_limit_of_its_own(watched: Watched) -> None:
    watched.live(1, steps=7, is_training=False)
    watched.live(1000, steps=7, is_training=False)
    assert watched.dog.problem() is None
    watched.live(1, steps=7, is_training=False)
    assert watched.dog.problem() == (
        "the preparation of the data set stood still for 1001 s, although the training process lives"
    )
    watched.live(1, steps=8, is_training=False)
    assert watched.dog.problem() is None


def test_time_in_which_the_worker_could_not_run_does_not_count(watched: Watched) -> None:
    """The job was suspended with all its processes; of that time two ticks count."""
    watched.live(1, steps=1)
    watched.now += 86400
    watched.dog.passed(watched.now)
    assert watched.dog.tick_seconds == 5
    assert watched.dog.problem() is None
    watched.wait(40)
    assert watched.dog.problem() is None
    watched.wait(1)
    assert watched.dog.problem() == "the training process gave no sign of life for 51 s"


def test_a_person_sets_the_limit_of_a_step() -> None:
    assert Patience.of(6) == Patience(silent_seconds=6, step_seconds=6)
    assert Patience.of(3600) == Patience(starting_seconds=3600, silent_seconds=3600, step_seconds=3600)
    assert (Patience().pulse_seconds, Patience.of(6).pulse_seconds) == (5.0, 0.6)
