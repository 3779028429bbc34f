"""Requests to end, as signals that this process sends itself."""

from __future__ import annotations

import os
import signal
import threading
import time

from hpo.launch.signals import asked_to_end


def test_each_ctrl_c_is_a_request_and_sigterm_soon_after_another_signal_is_the_same_one() -> None:
    with asked_to_end() as signals:
        assert signals.take() is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # Slurm sends it to all processes of a job, and its parent sends it on
        assert [signals.take(), signals.take()] == [1, None]
        os.kill(os.getpid(), signal.SIGINT)
        assert [signals.take(), signals.take()] == [2, None]


def test_a_signal_ends_a_wait_and_one_that_came_before_it_too() -> None:
    with asked_to_end() as signals:
        began = time.monotonic()
        sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        sender.start()
        signals.wait(300.0)
        signals.wait(300.0)
        assert signals.take() == 1
        assert time.monotonic() - began < 60.0
        sender.join()
