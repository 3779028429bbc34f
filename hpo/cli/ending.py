"""SIGTERM as the wish that a service ends, also where Python drops the exception that says so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def stop_at_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set during the block; for the main thread.

    Handlers run in the main thread between any two of its steps, also while it holds the lock within the event: setting
    the event there would wait for that lock for ever. So the handler only writes into a pipe, and a thread
    sets the event.
    """
    stop = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def note(_number: int, _frame: object) -> None:
        with suppress(BlockingIOError):  # there is more than enough in it
            os.write(writing, b"s")

    thread = threading.Thread(target=_set_after_byte, args=(reading, stop), name="signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        thread.join()
        os.close(reading)


def _set_after_byte(reading: int, stop: threading.Event) -> None:
    if os.read(reading, 1):
        stop.set()


class Ending:
    """Turns SIGTERM into a SystemExit wherever the main thread is, which unwinds its stack.

    Python drops what a callback of a weak reference or of the garbage collector raises, and every import runs such
    callbacks. A signal that comes there would be lost: it is remembered, and `check` raises it again.
    """

    def __init__(self) -> None:
        self._is_asked = False

    def listen(self) -> None:
        """Begin to take SIGTERM as that wish; called in the main thread."""
        signal.signal(signal.SIGTERM, self._end)

    def check(self) -> None:
        """Raise SystemExit if the signal has come: called before what waits for the next one."""
        if self._is_asked:
            raise SystemExit(0)

    def _end(self, _number: int, _frame: object) -> None:
        self._is_asked = True
        raise SystemExit(0)
